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

// Events come in bursts: one question answers many.
const GATHER_MS = 250;
// A stream that is not open by then is not waited for.
const OPEN_MS = 1_000;
// Where the question failed with the stream open, no event need come.
const RETRY_MS = 2_000;

/** useOverview keeps the newest sessions and the credentials up to date: events
 * say when to ask again. It asks once the stream of events is open, so that
 * nothing falls between the answer and the first event. */
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
    let open = false;
    const run = async (): Promise<void> => {
      clearTimeout(timer);
      timer = undefined;
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
        if (abort.signal.aborted) return;
        setOnline(false);
        if (open && !again) soon(RETRY_MS);
      } finally {
        asking = false;
        if (again && !abort.signal.aborted) {
          again = false;
          soon();
        }
      }
    };
    const soon = (ms = GATHER_MS): void => {
      timer ??= setTimeout(() => void run(), ms);
    };
    ask.current = () => void run();
    const stream = new EventStream(
      allEventsURL,
      {
        onOpen: () => {
          open = true;
          void run();
        },
        onEvent: (e) => {
          if (e.kind !== "log" && e.kind !== "progress") soon();
        },
        onDown: () => {
          open = false;
          void run();
        },
      },
      "now",
    );
    soon(OPEN_MS);
    return () => {
      abort.abort();
      clearTimeout(timer);
      stream.close();
    };
  }, []);

  const refresh = useCallback(() => ask.current(), []);
  return { sessions, credentials, online, refresh };
}
