import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { checkPort } from "../api/client";
import { sentence } from "../api/errors";
import type { Port, PortReport } from "../api/types";
import { Modal } from "../parts/Dialog";
import { Changes } from "./Changes";
import { problemOf, stateAt, WORDS } from "./model";
import { Ago, Refusals, StateNote } from "./PortTable";

interface Props {
  port: Port;
  all: Port[];
  now: number;
  onChanged: () => void;
  onClose: () => void;
}

/** PortDialog is all that is known of one port and all that can be done with
 * it. */
export function PortDialog({ port, all, now, onChanged, onClose }: Props): JSX.Element {
  const [report, setReport] = useState<PortReport | null>(null);
  const changed = (): void => {
    setReport(null);
    onChanged();
  };
  return (
    <Modal title={port.port} testid="port-dialog" long onClose={onClose}>
      <Facts port={port} now={now} />
      {port.configured ? (
        <Check port={port} report={report} onReport={setReport} onChanged={onChanged} />
      ) : (
        <p class="warn">This port is not in the server's configuration any more, so that its user cannot leave. Give them another one, or release it.</p>
      )}
      <Changes port={port} all={all} seen={report?.exit_address ?? ""} onChanged={changed} />
    </Modal>
  );
}

function Facts({ port: p, now }: { port: Port; now: number }): JSX.Element {
  const state = stateAt(p, now);
  return (
    <dl class="facts">
      <div>
        <dt>State</dt>
        <dd data-testid="port-state" data-state={state}>
          {WORDS[state]} <StateNote port={p} now={now} />
        </dd>
      </div>
      {p.user && (
        <>
          <div>
            <dt>User</dt>
            <dd>
              {p.user}
              {p.assigned_at && (
                <span class="note">
                  {" "}
                  · given <Ago at={p.assigned_at} now={now} />
                </span>
              )}
            </dd>
          </div>
          <div>
            <dt>Leaves from</dt>
            <dd>
              {p.exit_address ?? "not seen"}
              {p.checked_at && (
                <span class="note">
                  {" "}
                  · last seen <Ago at={p.checked_at} now={now} />
                </span>
              )}
            </dd>
          </div>
        </>
      )}
      {p.refuses.length > 0 && (
        <div>
          <dt>Refuses</dt>
          <dd>
            <Refusals refuses={p.refuses} />
          </dd>
        </div>
      )}
    </dl>
  );
}

interface CheckProps {
  port: Port;
  report: PortReport | null;
  onReport: (r: PortReport | null) => void;
  onChanged: () => void;
}

function Check({ port, report, onReport, onChanged }: CheckProps): JSX.Element {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const check = async (): Promise<void> => {
    setBusy(true);
    setError("");
    onReport(null);
    try {
      onReport(await checkPort(port.port));
      onChanged(); // what it refuses was noted
    } catch (err) {
      setError(sentence(err));
    } finally {
      setBusy(false);
    }
  };
  return (
    <div class="check-now">
      <button type="button" class="button" disabled={busy} data-testid="port-check" onClick={() => void check()}>
        {busy ? "Looking…" : "Check now"}
      </button>
      <div role="status" data-testid="port-report">
        {busy && <p class="hint">This takes up to half a minute.</p>}
        {report && <Seen port={port} report={report} />}
      </div>
      {error && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
    </div>
  );
}

/** Seen is what a look at a port has shown. */
function Seen({ port, report }: { port: Port; report: PortReport }): JSX.Element {
  const problem = problemOf(report);
  const other = report.exit_address !== undefined && port.exit_address !== undefined && report.exit_address !== port.exit_address;
  return (
    <>
      {report.exit_address && (
        <p class={other ? "warn" : "said"}>
          It leaves from <strong>{report.exit_address}</strong>
          {other && <>, which is not the address that was accepted, {port.exit_address}</>}.
        </p>
      )}
      {!report.exit_address && !problem && <p class="hint">It answers. This server does not ask which address it leaves from.</p>}
      {problem && <p class="error">{problem}</p>}
      {report.refuses.length > 0 && (
        <div class="warn">
          Its proxy refuses:
          <Refusals refuses={report.refuses} />
        </div>
      )}
      {report.refuses.length === 0 && !problem && <p class="said">It reaches everything that the tools need.</p>}
    </>
  );
}
