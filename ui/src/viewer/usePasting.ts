import type { RefObject } from "preact";
import { useEffect } from "preact/hooks";
import { useLatest } from "../lib/hooks";

/** usePasting makes Ctrl+V or Command+V on the screen paste the device's
 * clipboard. noVNC would swallow the key and paste what the remote clipboard
 * happens to hold; kept from noVNC, the key makes the browser send a paste
 * event, whose text needs no permission. */
export function usePasting(stage: RefObject<HTMLElement | null>, paste: (text: string) => void): void {
  const latest = useLatest(paste);
  useEffect(() => {
    const el = stage.current;
    if (!el) return;
    const onKey = (e: KeyboardEvent): void => {
      const v = e.code === "KeyV" || e.key.toLowerCase() === "v";
      if (v && (e.ctrlKey || e.metaKey) && !e.altKey && !e.shiftKey) e.stopPropagation();
    };
    const onPaste = (e: ClipboardEvent): void => {
      if (!el.contains(document.activeElement)) return;
      e.preventDefault();
      latest.current(e.clipboardData?.getData("text/plain") ?? "");
    };
    el.addEventListener("keydown", onKey, { capture: true });
    document.addEventListener("paste", onPaste);
    return () => {
      el.removeEventListener("keydown", onKey, { capture: true });
      document.removeEventListener("paste", onPaste);
    };
  }, [stage, latest]);
}
