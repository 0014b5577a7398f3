import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { Backoff } from "../lib/backoff";
import { sentence } from "./errors";

export interface Polled<T> {
  /** The newest answer; it stays while the server cannot be reached. */
  data: T | null;
  /** What was wrong with the newest request, or "". */
  problem: string;
  /** Asks at once. */
  refresh: () => void;
}

/** usePolled keeps up to date what no event tells of: it asks again every
 * everyMs while the page is looked at, and sooner after a failure. load must
 * stay the same function. */
export function usePolled<T>(load: (signal: AbortSignal) => Promise<T>, everyMs: number): Polled<T> {
  const [data, setData] = useState<T | null>(null);
  const [problem, setProblem] = useState("");
  const ask = useRef<() => void>(() => undefined);

  useEffect(() => {
    const abort = new AbortController();
    const backoff = new Backoff();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let asking = false;
    let again = false;
    const run = async (): Promise<void> => {
      clearTimeout(timer);
      if (asking) {
        again = true;
        return;
      }
      asking = true;
      let wait = everyMs;
      try {
        do {
          again = false;
          setData(await load(abort.signal));
        } while (again && !abort.signal.aborted);
        setProblem("");
        backoff.reset();
      } catch (err) {
        if (abort.signal.aborted) return;
        setProblem(sentence(err));
        wait = backoff.next();
      } finally {
        asking = false;
      }
      if (!abort.signal.aborted && document.visibilityState !== "hidden") timer = setTimeout(() => void run(), wait);
    };
    const onVisibility = (): void => {
      if (document.visibilityState !== "hidden") void run();
    };
    ask.current = () => void run();
    document.addEventListener("visibilitychange", onVisibility);
    void run();
    return () => {
      abort.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisibility);
    };
  }, [load, everyMs]);

  const refresh = useCallback(() => ask.current(), []);
  return { data, problem, refresh };
}
