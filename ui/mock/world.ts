// The mock server's world: what the real one keeps in its database, for the
// page's development and its pictures. Not part of the build.
import { randomBytes } from "node:crypto";
import type { Credential, Machine, Provider, Session, SessionEvent, SessionState } from "../src/api/types";
import { Ways } from "./ways.ts";

type Listener = (e: SessionEvent) => void;
export type Mock = "auto" | "manual";

const ORDER: SessionState[] = ["requested", "starting", "waiting", "capturing", "storing", "delivering", "completed"];

export const PROVIDERS: Provider[] = [
  provider("claude", "Claude Code", "Anthropic", "https://www.anthropic.com/legal/consumer-terms", ["claude auth logout"], ["claude_code"]),
  provider("codex", "Codex", "OpenAI", "https://openai.com/policies/terms-of-use", ["codex logout"], []),
  provider("gemini", "Gemini CLI", "Google", "https://policies.google.com/terms", [], []),
];

function provider(name: string, title: string, vendor: string, terms: string, revokes: string[], aliases: string[]): Provider {
  return { name, aliases, title, vendor, terms, version: "1.0.0", flow: "loopback", timeout_seconds: 900, rotates: name !== "gemini", revokes };
}

const MESSAGES: Partial<Record<SessionState, string>> = {
  requested: "Your sign-in is next.",
  starting: "A fresh browser machine is starting.",
  waiting: "Sign in on the page in the browser machine.",
  capturing: "You are signed in. Reading what the tool wrote.",
  storing: "Sealing the credentials in the vault.",
  delivering: "Handing the credentials to your own machine.",
  completed: "Your credentials are on your own machine.",
  cancelled: "This sign-in was cancelled.",
  expired: "The time for this sign-in ran out. Please start a new one.",
};

const FAILURES: Partial<Record<NonNullable<Session["reason"]>, string>> = {
  login_exited: "The command-line tool ended its sign-in without success. Its own words are in the session's log; please try again.",
  no_upstream_port: "No internet address of your own is free at the moment. Ask whoever runs this server for one.",
  upstream_port_shut: "Your way out to the internet is out of use until whoever runs this server has looked at it.",
  exit_address_changed:
    "Your way out to the internet suddenly had another address, so it was shut. Nothing was stored; ask whoever runs this server to look at it.",
  provider_blocked: "Your way out to the internet refuses an address that this tool needs. Ask whoever runs this server for another one.",
};

const DETAILS: typeof FAILURES = {
  exit_address_changed: "Its exit address was 203.0.113.7 and is 198.51.100.4.",
  provider_blocked: "Refused was auth.openai.com.",
};

/** What viewers did, for tests to look at. */
export interface Seen {
  keys: number[];
  clipboard: string;
  size: [number, number];
  clicks: number;
  viewers: number;
  /** Live videos that pages have ended while they went away. */
  videosEnded: number;
}

export class World {
  seen: Seen = fresh();
  /** Says something on every viewer's clipboard. */
  cutText = new Set<(text: string) => void>();
  sessions: Session[] = [];
  credentials: Credential[] = [];
  machines: Machine[] = [];
  events: SessionEvent[] = [];
  tickets = new Set<string>();
  codes = new Set(["demo-code-1234"]);
  ways = new Ways();
  /** Whether it plays the server of an anteroom connect. */
  connect = false;
  /** How many more tickets for a terminal it has no answer for yet. */
  notReady = 0;
  /** Whether no more sign-ins may wait. */
  full = false;
  signedIn = true;
  mode: Mock = "auto";
  /** Until when the server plays dead. */
  downUntil = 0;
  private listeners = new Set<Listener>();
  private timers = new Set<NodeJS.Timeout>();

  listen(fn: Listener): () => void {
    this.listeners.add(fn);
    return () => this.listeners.delete(fn);
  }

  reset(): void {
    for (const t of this.timers) clearTimeout(t);
    this.timers.clear();
    this.sessions = [];
    this.credentials = [];
    this.machines = [];
    this.events = [];
    this.ways.set({});
    this.connect = false;
    this.notReady = 0;
    this.full = false;
    this.signedIn = true;
    this.mode = "auto";
    this.downUntil = 0;
    this.seen = fresh();
  }

  ticket(): { ticket: string; expires_at: string } {
    const ticket = randomBytes(32).toString("base64url");
    this.tickets.add(ticket);
    return { ticket, expires_at: iso(30_000) };
  }

  emit(e: Omit<SessionEvent, "seq" | "at"> & { at?: string }): void {
    const full: SessionEvent = { at: iso(), ...e, seq: this.events.length + 1 };
    this.events.push(full);
    for (const fn of this.listeners) fn(full);
  }

  start(providerName: string, agoMs = 0): Session {
    const id = randomBytes(13).toString("hex").slice(0, 20);
    const s: Session = {
      id,
      provider: providerName,
      state: "requested",
      message: MESSAGES.requested ?? "",
      attempt: 1,
      viewer_url: `/sessions/${id}`,
      deadline: iso(900_000 - agoMs),
      created_at: iso(-agoMs),
      updated_at: iso(-agoMs),
    };
    this.sessions.unshift(s);
    this.emit({ kind: "state", session_id: id, state: "requested", message: s.message, at: s.created_at });
    if (this.mode === "auto") {
      this.after(80, () => this.move(id, "starting"));
      this.after(900, () => this.move(id, "waiting"));
    }
    return s;
  }

  /** What a sign-in in the browser machine sets off. */
  signInDone(id: string): void {
    const s = this.sessions.find((x) => x.id === id);
    if (this.mode !== "auto" || s?.state !== "waiting") return;
    this.move(id, "capturing");
    this.after(900, () => this.move(id, "storing"));
    this.after(1500, () => this.move(id, "delivering"));
    this.after(2600, () => this.move(id, "completed"));
  }

  move(id: string, state: SessionState, at = iso(), reason?: Session["reason"]): void {
    const s = this.sessions.find((x) => x.id === id);
    if (!s || isFinal(s.state)) return;
    s.state = state;
    s.updated_at = at;
    s.message = MESSAGES[state] ?? "";
    if (state === "failed") {
      s.reason = reason ?? "login_exited";
      s.message = FAILURES[s.reason] ?? "";
      const detail = DETAILS[s.reason];
      if (detail) s.detail = detail;
    }
    if (state === "cancelled" || state === "expired") s.reason = state;
    if (state === "starting") this.emit({ kind: "machine_created", session_id: id, message: "A browser machine was made.", at });
    const exit = this.ways.exit();
    if (state === "waiting" && exit) s.exit_address = exit;
    if (state === "delivering") this.store(s, at);
    this.emit({ kind: "state", session_id: id, state, ...(s.reason ? { reason: s.reason } : {}), message: s.message, at });
    if (state === "waiting") this.logLines(id, at);
    if (state === "completed") this.deliver(s.credential_id ?? "", at);
    if (isFinal(state)) {
      const gone = (): void => this.emit({ kind: "machine_destroyed", session_id: id, message: "The browser machine is gone.", at: iso() });
      if (this.mode === "auto") this.after(700, gone);
      else gone();
    }
  }

  /** walk takes a session through its states as if each had taken a while. */
  walk(id: string, until: SessionState, agoMs: number): void {
    const took: number[] = [0, 120, 780, 48_000, 600, 240, 900];
    let t = -agoMs;
    ORDER.slice(1, ORDER.indexOf(until) + 1).forEach((state, i) => {
      t += took[i + 1] ?? 500;
      this.move(id, state, iso(Math.min(t, 0)));
    });
  }

  machine(): Machine {
    const found = this.machines.find((m) => m.kind === "cli");
    if (found) return found;
    const m: Machine = { id: "m1234567890", kind: "cli", state: "running", driver: "gvisor", restored: false, created_at: iso(), ready_at: iso() };
    this.machines.push(m);
    return m;
  }

  deliver(credential: string, at = iso()): Credential | undefined {
    const c = this.credentials.find((x) => x.id === credential);
    if (!c) return undefined;
    c.delivered_at = at;
    c.delivered_to = this.machine().id;
    this.emit({ kind: "credential_delivered", message: "Delivered.", at });
    return c;
  }

  private store(s: Session, at: string): void {
    for (const c of this.credentials) if (c.provider === s.provider) c.active = false;
    const version = this.credentials.filter((c) => c.provider === s.provider).length + 1;
    const c: Credential = {
      id: randomBytes(8).toString("hex"),
      provider: s.provider,
      version,
      active: true,
      session_id: s.id,
      account: s.provider === "gemini" ? "" : "ada@example.org",
      expires_at: iso(8 * 3_600_000),
      created_at: at,
    };
    this.credentials.unshift(c);
    s.credential_id = c.id;
    this.emit({ kind: "credential_stored", session_id: s.id, message: "Stored.", at });
  }

  private logLines(id: string, at: string): void {
    for (const message of ["Opening browser to sign in…", "If the browser didn't open, visit: https://claude.ai/oauth/authorize?code=true&state=[redacted]", "Waiting for the sign-in to finish…"]) {
      this.emit({ kind: "log", session_id: id, message, at });
    }
  }

  private after(ms: number, fn: () => void): void {
    const t = setTimeout(() => {
      this.timers.delete(t);
      fn();
    }, ms);
    this.timers.add(t);
  }
}

function fresh(): Seen {
  return { keys: [], clipboard: "", size: [0, 0], clicks: 0, viewers: 0, videosEnded: 0 };
}

export function isFinal(s: SessionState): boolean {
  return s === "completed" || s === "failed" || s === "expired" || s === "cancelled";
}

export function iso(fromNowMs = 0): string {
  return new Date(Date.now() + fromNowMs).toISOString();
}
