import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { getSession, sessionEventsURL } from "../api/client";
import { ApiError } from "../api/errors";
import { EventStream } from "../api/events";
import type { Session } from "../api/types";
import { EMPTY, isFinal, later, withEvent, type Model } from "./model";

export interface LiveSession {
  row: Session | null;
  model: Model;
  /** No session with this id is the person's. */
  missing: boolean;
  /** Whether the server can be heard at the moment. */
  online: boolean;
  /** Grows each time that the stream is open again. */
  opened: number;
  /** Grows each time that the stream breaks, or could not be opened. */
  broke: number;
  setRow: (s: Session) => void;
}

/** useSession follows one session by its events, which carry it through
 * reloads and restarts of the server, and asks for its row whenever it moved
 * or the stream broke. */
export function useSession(id: string): LiveSession {
  const [row, put] = useState<Session | null>(null);
  const [model, setModel] = useState<Model>(EMPTY);
  const [missing, setMissing] = useState(false);
  const [online, setOnline] = useState(true);
  const [opened, setOpened] = useState(0);
  const [broke, setBroke] = useState(0);
  const newest = useRef<Session | null>(null);

  const setRow = useCallback((s: Session) => {
    const old = newest.current;
    // An answer that was overtaken by a newer one is not news.
    if (old && old.id === s.id && later(old.state, s.state) !== s.state) return;
    newest.current = s;
    put(s);
  }, []);

  useEffect(() => {
    newest.current = null;
    put(null);
    setModel(EMPTY);
    setMissing(false);
    const abort = new AbortController();
    let asking = false;
    let again = false;
    const ask = async (): Promise<void> => {
      if (asking) {
        again = true;
        return;
      }
      asking = true;
      try {
        do {
          again = false;
          setRow(await getSession(id, abort.signal));
          setOnline(true);
        } while (again && !abort.signal.aborted);
      } catch (err) {
        if (abort.signal.aborted) return;
        if (err instanceof ApiError && err.code === "not_found") {
          setMissing(true);
          stream.close();
        } else if (err instanceof ApiError && err.temporary) {
          setOnline(false);
        }
      } finally {
        asking = false;
      }
    };
    const stream = new EventStream(sessionEventsURL(id), {
      onOpen: () => {
        setOnline(true);
        setOpened((n) => n + 1);
        void ask();
      },
      onEvent: (e) => {
        setModel((m) => withEvent(m, e));
        if (e.kind !== "log" && e.kind !== "progress") void ask();
      },
      onDown: () => {
        setBroke((n) => n + 1);
        void ask();
      },
    });
    void ask();
    return () => {
      abort.abort();
      stream.close();
    };
  }, [id, setRow]);

  // Once it has ended and its machine is gone nothing more can come; the open
  // stream costs nothing and delivers later deliveries of the credential.
  return { row, model, missing, online: online || (row !== null && isFinal(row.state)), opened, broke, setRow };
}
