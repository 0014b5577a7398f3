import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { listPorts } from "../api/client";
import type { Port, PortState } from "../api/types";
import { usePolled } from "../api/usePolled";
import { useNow, useTitle } from "../lib/hooks";
import { Busy } from "../parts/Busy";
import { countsOf, matching, shortageOf, STATES, WORDS } from "./model";
import { PortDialog } from "./PortDialog";
import { PortTable } from "./PortTable";

const EVERY_MS = 15_000;

/** Ways is where an administrator sees who leaves through which upstream port,
 * and changes it. */
export function Ways(): JSX.Element {
  useTitle("Ways out");
  const { data, problem, refresh } = usePolled(listPorts, EVERY_MS);
  return (
    <section class="page wide">
      <div class="page-head">
        <h1>Ways out</h1>
        {data?.shared ? (
          <p class="lead" data-testid="ways-shared">
            All users of this server leave through one way out, so there are no ports to give. To give each a port of their own, change the
            server's configuration.
          </p>
        ) : (
          <p class="lead">
            Each user leaves through a port of their own, the same for all their machines, and comes from the same address every time.
          </p>
        )}
      </div>
      {problem && (
        <p class="warn" role="status">
          {problem} Trying again…
        </p>
      )}
      {data === null && !problem && <Busy label="Looking at the ports…" />}
      {data && !data.shared && <Ports ports={data.ports} refresh={refresh} />}
    </section>
  );
}

function Ports({ ports, refresh }: { ports: Port[]; refresh: () => void }): JSX.Element {
  const now = useNow(10_000);
  const [state, setState] = useState<PortState | "all">("all");
  const [text, setText] = useState("");
  const [chosen, setChosen] = useState("");
  const counts = countsOf(ports, now);
  const shortage = shortageOf(ports, now);
  const shown = matching(ports, state, text, now);
  const port = ports.find((p) => p.port === chosen);
  return (
    <>
      {shortage && (
        <p class={shortage.bad ? "error" : "warn"} role="status" data-testid="ways-shortage">
          {shortage.text}
        </p>
      )}
      <div class="filters">
        <div class="tallies" role="group" aria-label="Show the ports that are">
          {(["all", ...STATES] as const).map((s) => (
            <button
              key={s}
              type="button"
              class="tally"
              aria-pressed={state === s}
              data-state={s}
              data-testid={`ways-${s}`}
              onClick={() => setState(s)}
            >
              <strong>{s === "all" ? ports.length : counts[s]}</strong> {s === "all" ? "All" : WORDS[s]}
            </button>
          ))}
        </div>
        <label class="field">
          <span>Find a user, a port or an address</span>
          <input
            type="search"
            value={text}
            autocomplete="off"
            autocapitalize="none"
            spellcheck={false}
            data-testid="ways-find"
            onInput={(e) => setText(e.currentTarget.value)}
          />
        </label>
      </div>
      <p class="sr-only" role="status">
        {shown.length} of {ports.length} ports are shown.
      </p>
      {shown.length > 0 ? <PortTable ports={shown} now={now} onManage={setChosen} /> : <p class="empty">No port is like that.</p>}
      {port && <PortDialog port={port} all={ports} now={now} onChanged={refresh} onClose={() => setChosen("")} />}
    </>
  );
}
