import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { listSessions } from "../api/client";
import { sentence } from "../api/errors";
import type { Session } from "../api/types";
import { useOverview } from "../api/useOverview";
import { titleOf, useProviders } from "../api/useProviders";
import { useNow, useTitle } from "../lib/hooks";
import { followLink } from "../lib/router";
import { agoOf, momentOf, tookOf } from "../lib/time";
import { Busy } from "../parts/Busy";
import { isFinal } from "../session/model";

const WORDS: Record<Session["state"], string> = {
  requested: "Requested",
  starting: "Starting",
  waiting: "Waiting for you",
  capturing: "Capturing",
  storing: "Storing",
  delivering: "Delivering",
  completed: "Done",
  failed: "Did not work",
  expired: "Time ran out",
  cancelled: "Cancelled",
};

export function Activity(): JSX.Element {
  useTitle("Activity");
  const { sessions } = useOverview();
  const older = useOlder(sessions);
  const now = useNow(10_000);
  const all = sessions === null ? null : [...sessions, ...older.sessions];
  return (
    <section class="page">
      <div class="page-head">
        <h1>Activity</h1>
        <p class="lead">Every sign-in that you started, newest first.</p>
      </div>
      {all === null && <Busy label="Looking…" />}
      {all?.length === 0 && <p class="empty">Nothing yet. Your first sign-in will show up here.</p>}
      {all && all.length > 0 && (
        <ol class="rows" data-testid="activity">
          {all.map((s) => (
            <Row key={s.id} session={s} now={now} />
          ))}
        </ol>
      )}
      {older.error && (
        <p class="error" role="alert">
          {older.error}
        </p>
      )}
      {older.more && (
        <button type="button" class="button" disabled={older.busy} onClick={() => void older.load()}>
          {older.busy ? "Loading…" : "Show older ones"}
        </button>
      )}
    </section>
  );
}

function Row({ session: s, now }: { session: Session; now: number }): JSX.Element {
  const title = titleOf(useProviders(), s.provider);
  const took = isFinal(s.state) ? tookOf(Date.parse(s.updated_at) - Date.parse(s.created_at)) : "";
  return (
    <li>
      <a class="row" href={`/sessions/${s.id}`} onClick={followLink} data-testid={`session-${s.id}`}>
        <span class="chip" data-state={s.state}>
          {WORDS[s.state]}
        </span>
        <span class="row-main">
          <strong>{title}</strong>
          <span class="row-message">{s.message}</span>
        </span>
        <span class="row-time">
          <time dateTime={s.created_at} title={momentOf(s.created_at)}>
            {agoOf(s.created_at, now)}
          </time>
          {took && <span>{took}</span>}
        </span>
      </a>
    </li>
  );
}

interface Older {
  sessions: Session[];
  more: boolean;
  busy: boolean;
  error: string;
  load: () => Promise<void>;
}

const PAGE = 50;

/** useOlder adds pages after the newest one, on demand. */
function useOlder(newest: Session[] | null): Older {
  const [sessions, setSessions] = useState<Session[]>([]);
  const [next, setNext] = useState<string | null | undefined>(undefined);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const last = newest?.at(-1)?.id;
  // A new session pushes the last of the first page into the gap between the
  // pages: start over then.
  useEffect(() => {
    setSessions([]);
    setNext(undefined);
  }, [last]);
  const more = next === undefined ? (newest?.length ?? 0) >= PAGE : next !== null;
  const load = async (): Promise<void> => {
    const before = next ?? last;
    if (!before) return;
    setBusy(true);
    setError("");
    try {
      const page = await listSessions({ limit: PAGE, before });
      setSessions((s) => [...s, ...page.sessions]);
      setNext(page.next ?? null);
    } catch (err) {
      setError(sentence(err));
    } finally {
      setBusy(false);
    }
  };
  return { sessions, more, busy, error, load };
}
