import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { cancelSession } from "../api/client";
import { ApiError, sentence } from "../api/errors";
import type { Session, SessionState } from "../api/types";
import { useMe } from "../api/useMe";
import { titleOf, useProviders } from "../api/useProviders";
import { useNow, useTitle } from "../lib/hooks";
import { followLink } from "../lib/router";
import { clockOf } from "../lib/time";
import { Busy } from "../parts/Busy";
import { Icon } from "../parts/Icon";
import { Viewer, type Idle } from "../viewer/Viewer";
import { Log } from "./Log";
import { inQueue, isFailure, isFinal, isTrouble, stateOf, stepsOf } from "./model";
import { Ended, Succeeded } from "./Outcome";
import { Steps } from "./Steps";
import { useSession } from "./useSession";

export function SessionView({ id }: { id: string }): JSX.Element {
  const { row, model, missing, online, opened, broke, setRow } = useSession(id);
  const providers = useProviders();
  const { connect } = useMe();
  const title = titleOf(providers, row?.provider);
  useTitle(title ? `Sign in to ${title}` : "Sign-in");

  if (missing) return <Missing />;
  if (!row) return <Busy label={online ? "Opening the sign-in…" : "The server cannot be reached. Trying again…"} />;

  const state = stateOf(row, model);
  const final = isFinal(state);
  const steps = stepsOf(state, model, Date.parse(row.created_at));
  // The row follows the event that it belongs to by one request.
  const settled = row.state === state;
  return (
    <div class="session" data-testid="session" data-state={state}>
      <header class="session-head">
        <h1>Sign in to {title}</h1>
        {!final && <TimeLeft deadline={row.deadline} />}
        <p class="lead" aria-live="polite" data-testid="session-state" data-state={state}>
          {final || !settled ? LEADS[state] : model.progress || row.message}
        </p>
        <p class={isTrouble(model.way) ? "warn" : "said"} role="status" data-testid="session-way">
          {final ? "" : model.way}
        </p>
        {settled && !final && row.detail && <p class="hint">{row.detail}</p>}
        {!online && (
          <p class="warn" role="status">
            The server cannot be reached. Trying again…
          </p>
        )}
      </header>
      <div class="session-main">
        {!final && <Viewer session={id} active={HAS_SCREEN.has(state)} poke={opened} doubts={broke} idle={inQueue(state, model) ? QUEUED : (IDLE[state] ?? null)} />}
        {state === "completed" && <Succeeded session={row} state={state} title={title} destroyed={model.destroyed} />}
        {isFailure(state) && settled && <Ended session={row} state={state} title={title} destroyed={model.destroyed} />}
      </div>
      <aside class="session-side" aria-label="How it stands">
        <Steps steps={steps} />
        {!final && <Cancel id={id} onCancelled={setRow} />}
        {row.exit_address && (
          <p class="leaves" data-testid="exit-address">
            <Icon name="globe" />
            {final ? "Left from" : "Leaves from"} <strong>{row.exit_address}</strong>
          </p>
        )}
        <section class="promise" aria-labelledby="promise-title">
          <h2 id="promise-title">
            <Icon name="shield" />
            What happens to my credentials
          </h2>
          <p>
            {title} writes them inside the browser machine; they are sealed in this server's vault and handed to{" "}
            {connect ? "the computer on which anteroom connect runs, and the vault is deleted" : "your own machine only"}. The browser machine,
            with everything that was typed into it, is destroyed when the sign-in ends.
          </p>
        </section>
        <Log lines={model.log} title={title} />
      </aside>
    </div>
  );
}

const HAS_SCREEN = new Set<SessionState>(["waiting", "capturing"]);

const BEFORE: Idle = { status: "Starting…", notice: "Starting your browser machine…", busy: true };
const QUEUED: Idle = {
  status: "Waiting for a free place…",
  notice: "All browser machines are in use. Yours starts by itself; you can leave this page open, or come back to it.",
  busy: true,
};
const AFTER: Idle = { status: "Finished", notice: "You are signed in. This screen is no longer needed.", busy: false };
const IDLE: Partial<Record<SessionState, Idle>> = { requested: BEFORE, starting: BEFORE, storing: AFTER, delivering: AFTER };

const LEADS: Record<SessionState, string> = {
  requested: "Your sign-in is next.",
  starting: "A fresh browser machine is starting.",
  waiting: "Sign in on the page in the browser machine.",
  capturing: "You are signed in. Reading what the tool wrote.",
  storing: "Sealing the credentials in the vault.",
  delivering: "Handing the credentials to your own machine.",
  completed: "All done: the credentials are on your own machine.",
  failed: "The sign-in did not work.",
  expired: "The time for this sign-in ran out.",
  cancelled: "This sign-in was cancelled.",
};

function TimeLeft({ deadline }: { deadline: string }): JSX.Element {
  const now = useNow(1000);
  const left = Date.parse(deadline) - now;
  return (
    <p class="time-left" data-testid="time-left" data-low={left < 60_000} role="timer">
      <span class="sr-only">Time left: </span>
      {clockOf(left)}
      <span aria-hidden="true"> left</span>
    </p>
  );
}

function Cancel({ id, onCancelled }: { id: string; onCancelled: (s: Session) => void }): JSX.Element {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const cancel = async (): Promise<void> => {
    setBusy(true);
    setError("");
    try {
      onCancelled(await cancelSession(id));
    } catch (err) {
      // A session that has ended in the meantime says so by its events.
      if (!(err instanceof ApiError && err.code === "conflict")) setError(sentence(err));
      setBusy(false);
    }
  };
  return (
    <>
      <button type="button" class="button" disabled={busy} data-testid="cancel" onClick={() => void cancel()}>
        {busy ? "Cancelling…" : "Cancel this sign-in"}
      </button>
      {error && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
    </>
  );
}

function Missing(): JSX.Element {
  return (
    <section class="page narrow">
      <h1>No such sign-in</h1>
      <p>It may belong to somebody else, or the address is not complete.</p>
      <a class="button" href="/" onClick={followLink}>
        Back to connections
      </a>
    </section>
  );
}
