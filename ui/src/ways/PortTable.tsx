import type { ComponentChildren, JSX } from "preact";
import type { Port, Refusal } from "../api/types";
import { titleOf, useProviders } from "../api/useProviders";
import { agoOf, momentOf } from "../lib/time";
import { asSentence, stateAt, WORDS } from "./model";

interface Props {
  ports: Port[];
  now: number;
  onManage: (port: string) => void;
}

const COLUMNS = ["Port", "State", "User", "Leaves from", "Last seen", "Refuses"] as const;

/** PortTable is a row for each port; on a phone a card. Cards are no table to a
 * browser, so that the roles are written down. */
export function PortTable({ ports, now, onManage }: Props): JSX.Element {
  return (
    <table class="ports" role="table" aria-label="Upstream ports" data-testid="ways-table">
      <thead role="rowgroup">
        <tr role="row">
          {COLUMNS.map((c) => (
            <th key={c} role="columnheader" scope="col">
              {c}
            </th>
          ))}
          <th role="columnheader" scope="col">
            <span class="sr-only">What to do</span>
          </th>
        </tr>
      </thead>
      <tbody role="rowgroup">
        {ports.map((p) => (
          <Row key={p.port} port={p} now={now} onManage={onManage} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ port: p, now, onManage }: { port: Port; now: number; onManage: Props["onManage"] }): JSX.Element {
  const state = stateAt(p, now);
  return (
    <tr role="row" data-testid={`port-${p.port}`} data-state={state}>
      <th role="rowheader" scope="row">
        {p.port}
        {!p.configured && <span class="note bad">not in the configuration any more</span>}
      </th>
      <Cell name="State">
        <span class="chip" data-state={state}>
          {WORDS[state]}
        </span>
        <StateNote port={p} now={now} />
      </Cell>
      <Cell name="User">{p.user}</Cell>
      <Cell name="Leaves from">{p.exit_address}</Cell>
      <Cell name="Last seen">{p.checked_at && <Ago at={p.checked_at} now={now} />}</Cell>
      <Cell name="Refuses">{p.refuses.length > 0 && <Refusals refuses={p.refuses} />}</Cell>
      <td role="cell" class="does">
        <button type="button" class="button small" aria-label={`Manage ${p.port}`} data-testid={`manage-${p.port}`} onClick={() => onManage(p.port)}>
          Manage
        </button>
      </td>
    </tr>
  );
}

function Cell({ name, children }: { name: string; children: ComponentChildren }): JSX.Element {
  const empty = children === undefined || children === false;
  return (
    <td role="cell" data-name={name} data-empty={empty}>
      {empty ? <span aria-hidden="true">–</span> : children}
    </td>
  );
}

/** StateNote says what a state's word does not. */
export function StateNote({ port: p, now }: { port: Port; now: number }): JSX.Element | null {
  const state = stateAt(p, now);
  if (state === "quarantined" && p.reason) return <span class="note bad">{asSentence(p.reason)}</span>;
  if (state === "resting" && p.rest_until) {
    return (
      <span class="note" title={momentOf(p.rest_until)}>
        free {agoOf(p.rest_until, now)}
      </span>
    );
  }
  return p.in_use ? <span class="note">in use now</span> : null;
}

/** Ago is a moment in words. */
export function Ago({ at, now }: { at: string; now: number }): JSX.Element {
  return (
    <time dateTime={at} title={momentOf(at)}>
      {agoOf(at, now)}
    </time>
  );
}

/** Refusals is which host a port's proxy refuses, and which tool needs it. */
export function Refusals({ refuses }: { refuses: Refusal[] }): JSX.Element {
  const providers = useProviders();
  return (
    <ul class="refusals">
      {refuses.map((r) => (
        <li key={r.provider}>
          {r.name} <span class="note">for {titleOf(providers, r.provider)}</span>
        </li>
      ))}
    </ul>
  );
}
