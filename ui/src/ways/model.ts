// What an administrator is shown of the upstream ports, worked out from the
// list of them.
import type { Port, PortReport, PortState } from "../api/types";

export const STATES: readonly PortState[] = ["assigned", "free", "resting", "quarantined"];

/** What a port's state is called. */
export const WORDS: Record<PortState, string> = {
  assigned: "Used",
  free: "Free",
  resting: "Resting",
  quarantined: "In quarantine",
};

/** stateAt is a port's state at a moment: one whose rest is over is free,
 * though nothing has yet written that down. */
export function stateAt(p: Port, now: number): PortState {
  return p.state === "resting" && p.rest_until && Date.parse(p.rest_until) <= now ? "free" : p.state;
}

/** countsOf is how many ports are in each state. */
export function countsOf(ports: Port[], now: number): Record<PortState, number> {
  const counts: Record<PortState, number> = { assigned: 0, free: 0, resting: 0, quarantined: 0 };
  for (const p of ports) counts[stateAt(p, now)]++;
  return counts;
}

const MANY_USED = 0.8;
const FEW_FREE = 10;

export interface Shortage {
  text: string;
  /** Whoever comes next gets none. */
  bad: boolean;
}

/** shortageOf says when ports are running out: from 80% used on, or with fewer
 * than ten free ones. Ports that are not in the configuration any more are of
 * use to nobody, and do not count. */
export function shortageOf(ports: Port[], now: number): Shortage | null {
  const known = ports.filter((p) => p.configured);
  const used = known.filter((p) => p.user !== undefined).length;
  const free = known.filter((p) => stateAt(p, now) === "free").length;
  const of = `${used} of ${known.length} ports ${used === 1 ? "has a user" : "have users"}`;
  if (known.length === 0) return { text: "There are no ports in the server's configuration: nobody can leave.", bad: true };
  if (free === 0) return { text: `${of}, and none is free: whoever comes next gets no way out. Add ports to the server's configuration.`, bad: true };
  if (used / known.length < MANY_USED && free >= FEW_FREE) return null;
  return { text: `${of}, and ${free} ${free === 1 ? "is" : "are"} free. Add more to the server's configuration before they run out.`, bad: false };
}

/** matching is the ports in a state, of those that have a text in their name,
 * their user's or their address. */
export function matching(ports: Port[], state: PortState | "all", text: string, now: number): Port[] {
  const t = text.trim().toLowerCase();
  return ports.filter(
    (p) =>
      (state === "all" || stateAt(p, now) === state) &&
      (t === "" || [p.port, p.user, p.exit_address].some((s) => s?.toLowerCase().includes(t))),
  );
}

/** asSentence ends a text that somebody wrote with a full stop. */
export function asSentence(text: string): string {
  const t = text.trim();
  return t === "" || /[.!?…]$/.test(t) ? t : `${t}.`;
}

// What a look at a port can run into, by the code that the server gives.
const PROBLEMS: Record<string, string> = {
  exit_not_verified: "The address that it leaves from could not be seen: the proxy does not answer, or who was asked does not.",
  upstream_failed: "Its proxy did not answer when it was asked for all that the tools need.",
};

/** problemOf is what was wrong with a look at a port, in a sentence. */
export function problemOf(report: PortReport): string {
  if (!report.problem) return "";
  return PROBLEMS[report.problem] ?? `Something went wrong on the way (${report.problem}). The server's log says more.`;
}
