// What a session looks like, worked out from its row and its events. Both come
// on their own time; states only ever go forward, so the later one is right.
import type { Session, SessionEvent, SessionState } from "../api/types";

export type StepName = "starting" | "waiting" | "capturing" | "storing" | "delivering" | "completed";
export type StepStatus = "done" | "current" | "todo" | "failed";

export interface Step {
  name: StepName;
  label: string;
  status: StepStatus;
  /** When it began, and when the next one did; null where it has not (yet). */
  from: number | null;
  to: number | null;
}

const ORDER: SessionState[] = [
  "requested",
  "starting",
  "waiting",
  "capturing",
  "storing",
  "delivering",
  "completed",
  "failed",
  "expired",
  "cancelled",
];

const STEPS: readonly { name: StepName; label: string }[] = [
  { name: "starting", label: "Starting" },
  { name: "waiting", label: "Waiting for you" },
  { name: "capturing", label: "Capturing" },
  { name: "storing", label: "Storing" },
  { name: "delivering", label: "Delivering" },
  { name: "completed", label: "Done" },
];

// A session's log is kept to what a person can look through.
const MAX_LOG = 2000;

// How the server's sentences about the way out begin, and the one that says
// that all is well.
const WAY = "Your way out ";
const WAY_WORKS = "Your way out to the internet works again.";

/** isTrouble says whether a sentence about the way out is bad news. */
export function isTrouble(way: string): boolean {
  return way !== "" && way !== WAY_WORKS;
}

const FOR_ADMINS: ReadonlySet<Session["reason"]> = new Set<Session["reason"]>([
  "no_upstream_port",
  "upstream_port_shut",
  "exit_address_changed",
  "provider_blocked",
]);

/** needsAdmin says whether a session that failed for this reason fails again
 * until an administrator has changed something. */
export function needsAdmin(reason: Session["reason"]): boolean {
  return FOR_ADMINS.has(reason);
}

export interface Model {
  events: SessionEvent[];
  log: string[];
  /** The newest sentence about work under way, until the state changes. */
  progress: string;
  /** The newest sentence about the way out, until the state changes. */
  way: string;
  destroyed: boolean;
  /** When each state was entered. */
  entered: Partial<Record<SessionState, number>>;
  state: SessionState | null;
}

export const EMPTY: Model = { events: [], log: [], progress: "", way: "", destroyed: false, entered: {}, state: null };

export function isFinal(s: SessionState): boolean {
  return s === "completed" || isFailure(s);
}

export function isFailure(s: SessionState): boolean {
  return s === "failed" || s === "expired" || s === "cancelled";
}

export function later(a: SessionState | null, b: SessionState | null): SessionState | null {
  if (a === null || b === null) return a ?? b;
  if (isFinal(a)) return a;
  return ORDER.indexOf(b) > ORDER.indexOf(a) ? b : a;
}

/** withEvent is the model after one more event. Events come once and in order. */
export function withEvent(m: Model, e: SessionEvent): Model {
  const next: Model = { ...m };
  switch (e.kind) {
    case "log":
      next.log = [...m.log, e.message].slice(-MAX_LOG);
      return next;
    case "state":
      if (e.state) {
        next.entered = { ...m.entered, [e.state]: Date.parse(e.at) };
        next.state = later(m.state, e.state);
        next.progress = next.way = "";
      }
      break;
    case "progress":
      // News of the way out must not take the place of what is to be done, which
      // may hold the code to type in.
      if (e.message.startsWith(WAY)) next.way = e.message;
      else next.progress = e.message;
      break;
    case "machine_destroyed":
      next.destroyed = true;
      break;
    case "machine_created":
      // A further try after a machine that was given up.
      next.destroyed = false;
      break;
  }
  next.events = [...m.events, e];
  return next;
}

/** stateOf is where the session stands, by whichever source is ahead. */
export function stateOf(row: Session | null, m: Model): SessionState {
  return later(m.state, row?.state ?? null) ?? "requested";
}

/** inQueue says whether the session waits until it can start: nothing else is told
 * of one that has not begun to. */
export function inQueue(state: SessionState, m: Model): boolean {
  return state === "requested" && m.progress !== "";
}

/** stepsOf is the six steps with their times. A session that ended without
 * success failed at the step that it had reached. */
export function stepsOf(state: SessionState, m: Model, createdAt: number | null): Step[] {
  const entered = (s: SessionState): number | null => m.entered[s] ?? null;
  const began = STEPS.map(({ name }) => (name === "starting" ? (entered("requested") ?? createdAt ?? entered("starting")) : entered(name)));
  const ended = isFailure(state) ? entered(state) : null;
  const reached = isFailure(state) ? reachedBefore(m) : Math.max(0, STEPS.findIndex((s) => s.name === state));
  return STEPS.map(({ name, label }, i) => {
    const from = i <= reached ? (began[i] ?? null) : null;
    const to = i < reached ? (began.slice(i + 1, reached + 1).find((t) => t !== null) ?? null) : i === reached ? ended : null;
    return { name, label, status: statusOf(i, reached, state), from, to };
  });
}

function statusOf(i: number, reached: number, state: SessionState): StepStatus {
  if (i < reached || state === "completed") return "done";
  if (i > reached) return "todo";
  return isFailure(state) ? "failed" : "current";
}

function reachedBefore(m: Model): number {
  for (let i = STEPS.length - 1; i > 0; i--) {
    const step = STEPS[i];
    if (step && m.entered[step.name] !== undefined) return i;
  }
  return 0;
}
