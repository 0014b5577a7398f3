import type { ComponentChildren, JSX } from "preact";
import { useId, useRef, useState } from "preact/hooks";
import { assignPort, pinPort, quarantinePort, releasePort } from "../api/client";
import { sentence } from "../api/errors";
import type { Port } from "../api/types";

interface Props {
  port: Port;
  all: Port[];
  /** The address that a check has just seen, or "". */
  seen: string;
  onChanged: () => void;
}

/** Changes is what can be done with a port: those things only that make sense
 * as it stands. */
export function Changes({ port: p, all, seen, onChanged }: Props): JSX.Element {
  const [busy, setBusy] = useState(false);
  const [said, setSaid] = useState<{ text: string; bad: boolean } | null>(null);
  const group = useId();
  const run = async (work: () => Promise<unknown>, done: string): Promise<boolean> => {
    setBusy(true);
    setSaid(null);
    try {
      await work();
      setSaid({ text: done, bad: false });
      onChanged();
      return true;
    } catch (err) {
      setSaid({ text: sentence(err), bad: true });
      return false;
    } finally {
      setBusy(false);
    }
  };
  const share = { port: p, group, busy, run };
  return (
    <div class="changes">
      <p class={said?.bad ? "error" : "said"} role="status" data-testid="port-said">
        {said?.text}
      </p>
      {p.user !== undefined && <Accept key={seen} {...share} seen={seen} />}
      {p.configured && <Assign {...share} all={all} />}
      {p.state !== "free" && <Release {...share} />}
      {p.state !== "quarantined" && <Quarantine {...share} />}
    </div>
  );
}

interface ChangeProps {
  port: Port;
  group: string;
  busy: boolean;
  /** Does it and says how it went; true: it is done. */
  run: (work: () => Promise<unknown>, done: string) => Promise<boolean>;
}

interface FoldProps {
  title: string;
  group: string;
  open?: boolean;
  testid: string;
  busy: boolean;
  danger?: boolean;
  confirm: string;
  onGo: () => Promise<boolean>;
  children: ComponentChildren;
}

/** Fold is one change: what it does, what it needs to know, its button. It folds
 * up once that is done. */
function Fold(f: FoldProps): JSX.Element {
  const ref = useRef<HTMLDetailsElement>(null);
  const go = async (): Promise<void> => {
    if ((await f.onGo()) && ref.current) ref.current.open = false;
  };
  return (
    <details ref={ref} class="fold change" name={f.group} open={f.open} data-testid={f.testid}>
      <summary>{f.title}</summary>
      <form
        onSubmit={(e) => {
          e.preventDefault();
          void go();
        }}
      >
        {f.children}
        <button type="submit" class={f.danger ? "button danger" : "button primary"} disabled={f.busy} data-testid={`${f.testid}-go`}>
          {f.busy ? "One moment…" : f.confirm}
        </button>
      </form>
    </details>
  );
}

function Accept({ port, group, busy, run, seen }: ChangeProps & { seen: string }): JSX.Element {
  const [address, setAddress] = useState(seen);
  const other = seen !== "" && seen !== port.exit_address;
  const go = (): Promise<boolean> => {
    const a = address.trim();
    return run(() => pinPort(port.port, a), a ? `${a} is the accepted address now.` : "The address that is seen next will be the accepted one.");
  };
  return (
    <Fold title="Accept an address" group={group} open={other} testid="port-pin" busy={busy} confirm="Accept" onGo={go}>
      <p>
        {port.user} then leaves from this address and no other.{port.state === "quarantined" && " The port is in use again."}
      </p>
      <Field label="Address; with none, the one that is seen next" value={address} onValue={setAddress} testid="port-pin-address" />
    </Fold>
  );
}

function Assign({ port, group, busy, run, all }: ChangeProps & { all: Port[] }): JSX.Element {
  const [user, setUser] = useState("");
  const list = useId();
  const names = all.flatMap((p) => (p.user && p.user !== port.user ? [p.user] : [])).sort();
  const go = (): Promise<boolean> => {
    const name = user.trim();
    return run(() => assignPort(port.port, name), `It is ${name}'s.`);
  };
  return (
    <Fold title="Give it to a user" group={group} testid="port-assign" busy={busy} confirm="Give" onGo={go}>
      <p>Their connections end, and they come from another address. The port that they have rests.</p>
      {port.user && <p>{port.user} has it: release it first to give it to somebody else.</p>}
      <Field label="User's name" value={user} onValue={setUser} testid="port-assign-user" list={list} required maxLength={64} />
      <datalist id={list}>
        {names.map((n) => (
          <option key={n} value={n} />
        ))}
      </datalist>
    </Fold>
  );
}

function Release({ port, group, busy, run }: ChangeProps): JSX.Element {
  const [now, setNow] = useState(false);
  const go = (): Promise<boolean> =>
    run(() => releasePort(port.port, now), now ? "Nobody has it. It is free." : "Nobody has it. It rests for a while.");
  return (
    <Fold title="Release it" group={group} testid="port-release" busy={busy} confirm="Release" danger={port.user !== undefined} onGo={go}>
      {port.user && <p>{port.user}'s connections end. They get another port, and with it another address, when they next need one.</p>}
      <label class="check">
        <input type="checkbox" checked={now} data-testid="port-release-now" onChange={(e) => setNow(e.currentTarget.checked)} />
        Now: without a rest before somebody else may have it
      </label>
    </Fold>
  );
}

function Quarantine({ port, group, busy, run }: ChangeProps): JSX.Element {
  const [reason, setReason] = useState("");
  const go = (): Promise<boolean> => run(() => quarantinePort(port.port, reason.trim()), "It is out of use.");
  return (
    <Fold title="Put it into quarantine" group={group} testid="port-quarantine" busy={busy} confirm="Put out of use" danger onGo={go}>
      {port.user ? (
        <p>{port.user} keeps it, and cannot leave until it is released or an address is accepted. They are shown the reason.</p>
      ) : (
        <p>Nobody is given it until it is released.</p>
      )}
      <Field label="Reason" value={reason} onValue={setReason} testid="port-quarantine-reason" required maxLength={200} />
    </Fold>
  );
}

interface FieldProps {
  label: string;
  value: string;
  onValue: (v: string) => void;
  testid: string;
  list?: string;
  required?: boolean;
  maxLength?: number;
}

function Field({ label, value, onValue, testid, ...rest }: FieldProps): JSX.Element {
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type="text"
        value={value}
        autocomplete="off"
        autocapitalize="none"
        spellcheck={false}
        data-testid={testid}
        onInput={(e) => onValue(e.currentTarget.value)}
        {...rest}
      />
    </label>
  );
}
