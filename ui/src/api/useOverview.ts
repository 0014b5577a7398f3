import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { allEventsURL, listCredentials, listSessions } from "./client";
import { EventStream } from "./events";
import type { Credential, Session } from "./types";

export interface Overview {
  /** null until the first answer. */
  sessions: Session[] | null;
  credentials: Credential[] | null;
  online: boolean;
  refresh: () => void;
}

// Events come in bursts, and all old ones at first: one question answers many.
const GATHER_MS = 250;

/** useOverview keeps the newest sessions and the credentials up to date: events
 * say when to ask again. */
export function useOverview(): Overview {
  const [sessions, setSessions] = useState<Session[] | null>(null);
  const [credentials, setCredentials] = useState<Credential[] | null>(null);
  const [online, setOnline] = useState(true);
  const ask = useRef<() => void>(() => undefined);

  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let asking = false;
    let again = false;
    const run = async (): Promise<void> => {
      if (asking) {
        again = true;
        return;
      }
      asking = true;
      try {
        const [s, c] = await Promise.all([listSessions({ limit: 50, signal: abort.signal }), listCredentials(abort.signal)]);
        setSessions(s.sessions);
        setCredentials(c);
        setOnline(true);
      } catch {
        if (!abort.signal.aborted) setOnline(false);
      } finally {
        asking = false;
        if (again && !abort.signal.aborted) {
          again = false;
          soon();
        }
      }
    };
    const soon = (): void => {
      timer ??= setTimeout(() => {
        timer = undefined;
        void run();
      }, GATHER_MS);
    };
    ask.current = () => void run();
    const stream = new EventStream(allEventsURL, {
      onOpen: () => void run(),
      onEvent: (e) => {
        if (e.kind !== "log" && e.kind !== "progress") soon();
      },
      onDown: () => void run(),
    });
    void run();
    return () => {
      abort.abort();
      clearTimeout(timer);
      stream.close();
    };
  }, []);

  const refresh = useCallback(() => ask.current(), []);
  return { sessions, credentials, online, refresh };
}
