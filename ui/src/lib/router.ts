// Routing by path, small enough to read: the server answers every page address
// with the same document, and this module turns the path into a view.
import { useEffect, useState } from "preact/hooks";

export type Route =
  | { view: "home" }
  | { view: "session"; id: string }
  | { view: "terminal" }
  | { view: "activity" }
  | { view: "ways" }
  | { view: "missing" };

export function routeOf(path: string): Route {
  const session = /^\/sessions\/([A-Za-z0-9_-]{1,64})\/?$/.exec(path);
  if (session?.[1]) return { view: "session", id: session[1] };
  switch (path.replace(/\/+$/, "")) {
    case "":
      return { view: "home" };
    case "/terminal":
      return { view: "terminal" };
    case "/activity":
      return { view: "activity" };
    case "/ways":
      return { view: "ways" };
    default:
      return { view: "missing" };
  }
}

const CHANGED = "anteroom:route";

export function navigate(path: string): void {
  if (path !== location.pathname) history.pushState(null, "", path);
  dispatchEvent(new Event(CHANGED));
  scrollTo(0, 0);
}

/** usePath is the current path; it changes with navigate and the back button. */
export function usePath(): string {
  const [path, setPath] = useState(location.pathname);
  useEffect(() => {
    const update = (): void => setPath(location.pathname);
    addEventListener("popstate", update);
    addEventListener(CHANGED, update);
    return () => {
      removeEventListener("popstate", update);
      removeEventListener(CHANGED, update);
    };
  }, []);
  return path;
}

/** followLink is the click handler of every inner link: a plain click changes
 * the view, anything else (new tab, download) stays the browser's. */
export function followLink(e: MouseEvent): void {
  if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
  const a = e.currentTarget;
  if (!(a instanceof HTMLAnchorElement) || a.origin !== location.origin) return;
  e.preventDefault();
  navigate(a.pathname);
}
