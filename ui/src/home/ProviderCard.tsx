import type { JSX } from "preact";
import { useId, useState } from "preact/hooks";
import { deliverCredential } from "../api/client";
import { sentence } from "../api/errors";
import type { Credential, Provider, Session } from "../api/types";
import { useMe } from "../api/useMe";
import { followLink } from "../lib/router";
import { agoOf, momentOf } from "../lib/time";
import { DeleteDialog } from "./DeleteDialog";

interface Props {
  provider: Provider;
  credential: Credential | null;
  /** A sign-in of this provider that is under way. */
  running: Session | null;
  now: number;
  /** The provider that is just being started, if any. */
  busy: string | null;
  onConnect: () => void;
  onChanged: () => void;
}

export function ProviderCard(p: Props): JSX.Element {
  const { provider, credential, running, now } = p;
  const heading = useId();
  const state = stateOf(credential, running, now);
  return (
    <li class="card" aria-labelledby={heading} data-testid={`credential-${provider.name}`} data-state={state}>
      <div class="card-head">
        <div>
          <h2 id={heading}>{provider.title}</h2>
          <p class="vendor">
            {provider.vendor} ·{" "}
            <a href={provider.terms} target="_blank" rel="noreferrer">
              terms
            </a>
          </p>
        </div>
        <p class="chip" data-state={state}>
          {CHIPS[state]}
        </p>
      </div>
      {credential ? <Facts credential={credential} provider={provider} now={now} /> : <p class="card-empty">{emptyWord(provider, running)}</p>}
      <Actions {...p} />
    </li>
  );
}

type CardState = "none" | "running" | "connected" | "expired";

const CHIPS: Record<CardState, string> = {
  none: "Not connected",
  running: "Signing in",
  connected: "Connected",
  expired: "Expired",
};

function stateOf(c: Credential | null, running: Session | null, now: number): CardState {
  if (running) return "running";
  if (!c) return "none";
  return c.expires_at && Date.parse(c.expires_at) <= now ? "expired" : "connected";
}

function emptyWord(p: Provider, running: Session | null): string {
  if (running) return running.message;
  return `Sign in with your own ${p.vendor} account. You have ${Math.max(1, Math.round(p.timeout_seconds / 60))} minutes once it has started.`;
}

function Facts({ credential: c, provider, now }: { credential: Credential; provider: Provider; now: number }): JSX.Element {
  return (
    <dl class="facts">
      <Fact name="Account" value={c.account || "not named by the tool"} />
      {c.expires_at && (
        <Fact
          name={Date.parse(c.expires_at) <= now ? "Expired" : "Expires"}
          value={agoOf(c.expires_at, now)}
          title={momentOf(c.expires_at)}
          note={provider.rotates ? "renewed by the tool" : ""}
        />
      )}
      <Fact
        name="Delivered"
        value={c.delivered_at ? agoOf(c.delivered_at, now) : "not yet"}
        title={c.delivered_at ? momentOf(c.delivered_at) : ""}
      />
    </dl>
  );
}

function Fact(f: { name: string; value: string; title?: string; note?: string }): JSX.Element {
  return (
    <div>
      <dt>{f.name}</dt>
      <dd title={f.title}>
        {f.value}
        {f.note && <span class="note"> · {f.note}</span>}
      </dd>
    </div>
  );
}

function Actions({ provider, credential, running, busy, onConnect, onChanged }: Props): JSX.Element {
  const { connect } = useMe();
  const [delivering, setDelivering] = useState(false);
  const [deleting, setDeleting] = useState(false);
  const [said, setSaid] = useState<{ text: string; bad: boolean } | null>(null);
  const deliver = async (c: Credential): Promise<void> => {
    setDelivering(true);
    setSaid(null);
    try {
      await deliverCredential(c.id);
      setSaid({ text: "Delivered to your machine.", bad: false });
      onChanged();
    } catch (err) {
      setSaid({ text: sentence(err), bad: true });
    } finally {
      setDelivering(false);
    }
  };
  return (
    <>
      <div class="actions">
        {running ? (
          <a class="button primary" href={`/sessions/${running.id}`} onClick={followLink} data-testid={`continue-${provider.name}`}>
            Continue the sign-in
          </a>
        ) : (
          <button
            type="button"
            class={credential ? "button" : "button primary"}
            disabled={busy !== null}
            data-testid={`connect-${provider.name}`}
            onClick={onConnect}
          >
            {busy === provider.name ? "Starting…" : credential ? "Sign in again" : `Connect ${provider.title}`}
          </button>
        )}
        {credential && (
          <>
            {!connect && (
              <button
                type="button"
                class="button"
                disabled={delivering}
                data-testid={`deliver-${provider.name}`}
                onClick={() => void deliver(credential)}
              >
                {delivering ? "Delivering…" : "Deliver again"}
              </button>
            )}
            <button type="button" class="button quiet" data-testid={`delete-${provider.name}`} onClick={() => setDeleting(true)}>
              Delete
            </button>
          </>
        )}
      </div>
      <p class={said?.bad ? "error" : "said"} role="status">
        {said?.text}
      </p>
      {deleting && credential && (
        <DeleteDialog provider={provider} credential={credential} onClose={() => setDeleting(false)} onDeleted={onChanged} />
      )}
    </>
  );
}
