import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { deliverCredential } from "../api/client";
import { sentence } from "../api/errors";
import type { Session, SessionState } from "../api/types";
import { useMe } from "../api/useMe";
import { followLink, navigate } from "../lib/router";
import { Icon } from "../parts/Icon";
import { needsAdmin } from "./model";
import { useConnect } from "./useConnect";

interface Props {
  session: Session;
  state: SessionState;
  title: string;
  destroyed: boolean;
}

/** Succeeded is what stands in the viewer's place when all is done. */
export function Succeeded({ title, destroyed }: Props): JSX.Element {
  const { connect } = useMe();
  return (
    <section class="outcome good" aria-labelledby="outcome-title">
      <span class="seal" aria-hidden="true">
        <Icon name="check" />
      </span>
      <h2 id="outcome-title">{title} is connected</h2>
      {connect ? (
        <p data-testid="go-back">Its credentials are in place on the computer on which anteroom connect runs: go back to it. You can close this page.</p>
      ) : (
        <p>Its credentials are sealed in the vault and in place on your own machine.</p>
      )}
      <Gone destroyed={destroyed} />
      {!connect && (
        <div class="actions">
          <a class="button primary" href="/terminal" onClick={followLink} data-testid="open-terminal">
            <Icon name="terminal" />
            Open a terminal
          </a>
          <a class="button" href="/" onClick={followLink}>
            Back to connections
          </a>
        </div>
      )}
    </section>
  );
}

/** Ended is what stands there when it ended in any other way. */
export function Ended({ session, state, title, destroyed }: Props): JSX.Element {
  const me = useMe();
  return (
    <section class="outcome bad" aria-labelledby="outcome-title">
      <span class="seal" aria-hidden="true">
        <Icon name="cross" />
      </span>
      <h2 id="outcome-title">{HEADINGS[state] ?? HEADINGS.failed}</h2>
      <p data-testid="session-reason" data-reason={session.reason}>
        {me.connect && session.reason === "delivery_failed" ? REFUSED : session.message}
      </p>
      {session.detail && <p class="hint">{session.detail}</p>}
      <Gone destroyed={destroyed} />
      {me.connect ? (
        <p class="hint" data-testid="go-back">
          To try again, start anteroom connect once more on your computer. You can close this page.
        </p>
      ) : (
        <WhatNow session={session} admin={me.admin} />
      )}
      <p class="sr-only">This was the sign-in to {title}.</p>
    </section>
  );
}

/** WhatNow is what the person can do about it; the main button is the one that
 * helps. */
function WhatNow({ session, admin }: { session: Session; admin: boolean }): JSX.Element {
  const { connect, busy, error } = useConnect();
  const [delivering, setDelivering] = useState(false);
  const [failed, setFailed] = useState("");
  const stored = session.credential_id;
  const deliver = async (id: string): Promise<void> => {
    setDelivering(true);
    setFailed("");
    try {
      await deliverCredential(id);
      navigate("/");
    } catch (err) {
      setFailed(sentence(err));
      setDelivering(false);
    }
  };
  const waits = needsAdmin(session.reason);
  return (
    <>
      {waits && <p class="hint">Trying again helps only once that has been done.</p>}
      <div class="actions">
        {waits && admin && (
          <a class="button primary" href="/ways" onClick={followLink} data-testid="to-ways">
            <Icon name="globe" />
            Ways out
          </a>
        )}
        {stored && (
          <button type="button" class="button primary" disabled={delivering} data-testid="deliver-again" onClick={() => void deliver(stored)}>
            {delivering ? "Delivering…" : "Deliver"}
          </button>
        )}
        <button
          type="button"
          class={stored || waits ? "button" : "button primary"}
          disabled={busy !== null}
          data-testid="try-again"
          onClick={() => void connect(session.provider)}
        >
          {busy ? "Starting…" : "Try again"}
        </button>
        <a class={waits && !admin ? "button primary" : "button"} href="/" onClick={followLink} data-testid="to-connections">
          Back to connections
        </a>
      </div>
      {(error || failed) && (
        <p class="error" role="alert">
          {failed || error}
        </p>
      )}
    </>
  );
}

function Gone({ destroyed }: { destroyed: boolean }): JSX.Element {
  return destroyed ? (
    <p class="gone" data-testid="destroyed">
      <Icon name="shield" />
      Browser machine destroyed
    </p>
  ) : (
    <p class="gone pending">
      <span class="spinner" aria-hidden="true" />
      The browser machine is being destroyed
    </p>
  );
}

// Under anteroom connect there is no Deliver to press.
const REFUSED = "You are signed in, but that computer did not take the credentials. What anteroom connect says there tells why.";

const HEADINGS: Partial<Record<SessionState, string>> & { failed: string } = {
  failed: "The sign-in did not work",
  expired: "The time ran out",
  cancelled: "Sign-in cancelled",
};
