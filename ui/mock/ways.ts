// The ways out of the mock server: a hundred and twenty ports, and whoever has
// them.
import type { Egress, Port, PortReport, Refusal } from "../src/api/types";
import { missing, ok, problem, type Answer, type Route } from "./answer.ts";
import type { World } from "./world.ts";

const HOST = "dc.decodo.com";
const MINUTE = 60_000;
const NAMES = ["grace", "alan", "edsger", "barbara", "donald", "frances", "john", "ada", "tony", "radia", "dennis", "hedy"];
const CHANGED = "198.51.100.4";

interface Setting {
  kind?: Egress["kind"];
  admin?: boolean;
  used?: number;
  total?: number;
  quarantine?: string;
}

/** Ways is who leaves how. */
export class Ways {
  readonly me = "ada";
  admin = true;
  kind: Egress["kind"] = "port";
  ports: Port[] = [];

  constructor() {
    this.set({});
  }

  set(s: Setting): void {
    this.kind = s.kind ?? "port";
    this.admin = s.admin ?? true;
    const total = s.total ?? 120;
    this.ports = Array.from({ length: total }, (_, i) => portOf(i, s.used ?? 84));
    const mine = this.mine();
    if (mine && s.quarantine) Object.assign(mine, { state: "quarantined", reason: s.quarantine, in_use: false });
    if (total < 120) return;
    this.ports.push({ ...portOf(total, total + 1), port: `${HOST}:9000`, user: "mary", configured: false, in_use: false });
  }

  mine(): Port | undefined {
    return this.ports.find((p) => p.user === this.me);
  }

  /** Where the user's machines leave from, if that is looked at. */
  exit(): string | undefined {
    return this.kind === "direct" ? undefined : this.kind === "shared" ? "203.0.113.200" : this.mine()?.exit_address;
  }

  egress(open: boolean): Egress {
    const p = this.mine();
    if (this.kind !== "port") {
      const exit = this.exit();
      return { kind: this.kind, open, ...(open && exit ? { exit_address: exit } : {}) };
    }
    if (!p) return { kind: "port", open: false };
    const { port, state, exit_address, checked_at, reason } = p;
    return { kind: "port", open: open && state === "assigned", port, state, exit_address, checked_at, reason } as Egress;
  }

  user(name: string): boolean {
    return name === "zoe" || this.ports.some((p) => p.user === name);
  }
}

function portOf(i: number, used: number): Port {
  const p: Port = { port: `${HOST}:${10001 + i}`, state: "free", configured: true, in_use: false, refuses: [] };
  if (i === 2) p.refuses = [{ provider: "codex", name: "auth.openai.com" }];
  if (i < used) {
    Object.assign(p, {
      state: "assigned",
      user: i < NAMES.length ? NAMES[i] : `${NAMES[i % NAMES.length] ?? ""}${Math.floor(i / NAMES.length) + 1}`,
      exit_address: `203.0.113.${i}`,
      assigned_at: ago((i + 3) * 1000 * MINUTE),
      checked_at: ago((i + 2) * (i + 2) * MINUTE),
      in_use: i % 3 === 1,
    });
    if (i === 4) Object.assign(p, { state: "quarantined", reason: `Its exit address was 203.0.113.4 and is ${CHANGED}.`, in_use: false });
  } else if (i < used + 3) Object.assign(p, { state: "resting", rest_until: ago((used - i - 1) * 7 * 60 * MINUTE) });
  else if (i === used + 3) Object.assign(p, { state: "quarantined", reason: "The vendor says that it is broken" });
  return p;
}

const ago = (ms: number): string => new Date(Date.now() - ms).toISOString();

/** wayRoutes is what the API answers about ways out. */
export function wayRoutes(w: World): Route[] {
  const ways = w.ways;
  const running = (): boolean => w.machines.length > 0 || w.sessions.some((s) => s.state === "waiting");
  /** Runs for an administrator, and for a port that there is. */
  const on = (action: string, f: (p: Port, body: Record<string, unknown>) => Answer | Promise<Answer>): Route => [
    "POST",
    new RegExp(`^/api/v1/egress/ports/([^/]+)/${action}$`),
    (m, body) => {
      if (!ways.admin) return missing();
      if (ways.kind !== "port") return problem(409, "conflict", "All users of this server leave through one upstream: there are no ports to give.");
      const p = ways.ports.find((x) => x.port === decodeURIComponent(m[1] ?? ""));
      return p ? f(p, body) : missing();
    },
  ];
  return [
    ["GET", /^\/api\/v1\/egress$/, () => ok(ways.egress(running()))],
    ["GET", /^\/api\/v1\/egress\/ports$/, () => {
      if (!ways.admin) return missing();
      return ok({ shared: ways.kind !== "port", ports: ways.kind === "port" ? ways.ports : [] });
    }],
    on("assign", (p, { user }) => assign(ways, p, String(user))),
    on("release", (p, { now }) => {
      free(p, now === true ? 0 : 24 * 60 * MINUTE);
      return { status: 204 };
    }),
    on("quarantine", (p, { reason }) => {
      Object.assign(p, { state: "quarantined", reason: String(reason), in_use: false });
      return { status: 204 };
    }),
    on("pin", (p, { exit_address }) => {
      if (!p.user) return missing();
      if (exit_address !== undefined && !/^[0-9a-f.:]+$/.test(String(exit_address))) {
        return problem(400, "invalid_request", "exit_address must be an IPv4 or IPv6 address.");
      }
      delete p.reason;
      delete p.exit_address;
      Object.assign(p, { state: "assigned", ...(exit_address ? { exit_address } : {}) });
      return ok(p);
    }),
    on("check", async (p) => {
      await new Promise((r) => setTimeout(r, 300));
      return ok(look(p));
    }),
    ["POST", /^\/mock\/ways$/, (_, body) => (ways.set(body), { status: 204 })],
  ];
}

function assign(ways: Ways, p: Port, user: string): Answer {
  if (!ways.user(user)) return problem(400, "invalid_request", "There is no user of that name.");
  if (p.user && p.user !== user) return problem(409, "conflict", "Another user has that port. Release it first.");
  const had = ways.ports.find((x) => x.user === user);
  if (had && had !== p) free(had, 24 * 60 * MINUTE);
  free(p, 0);
  Object.assign(p, { state: "assigned", user, assigned_at: ago(0) });
  return ok(p);
}

function free(p: Port, restMs: number): void {
  const { port, configured, refuses } = p;
  for (const k of Object.keys(p)) Object.assign(p, { [k]: undefined }); // and so not in the answer
  Object.assign(p, { port, configured, refuses, state: restMs ? "resting" : "free", in_use: false });
  if (restMs) p.rest_until = ago(-restMs);
}

function look(p: Port): PortReport {
  const refuses: Refusal[] = p.refuses;
  if (p.reason?.includes("broken")) return { port: p.port, problem: "exit_not_verified", refuses };
  const seen = p.reason?.includes(CHANGED) ? CHANGED : (p.exit_address ?? `203.0.113.${Number(p.port.split(":")[1]) - 10001}`);
  return { port: p.port, exit_address: seen, refuses };
}
