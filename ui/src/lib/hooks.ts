import { useEffect, useRef, useState } from "preact/hooks";
import { serverNow } from "./clock";

/** useNow is the server's time, fresh every interval while active. */
export function useNow(intervalMs: number, active = true): number {
  const [now, setNow] = useState(() => serverNow());
  useEffect(() => {
    if (!active) return;
    setNow(serverNow());
    const timer = setInterval(() => setNow(serverNow()), intervalMs);
    return () => clearInterval(timer);
  }, [intervalMs, active]);
  return now;
}

/** useLatest is a box that always holds the value of the last render, for
 * callbacks that outlive one. */
export function useLatest<T>(value: T): { readonly current: T } {
  const box = useRef(value);
  box.current = value;
  return box;
}

/** useTitle names the browser's tab. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = title ? `${title} · Anteroom` : "Anteroom";
  }, [title]);
}
