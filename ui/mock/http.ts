import type { IncomingMessage, ServerResponse } from "node:http";
import type { Me, Session, SessionState } from "../src/api/types";
import { missing, ok, problem, type Answer, type Route } from "./answer.ts";
import { wayRoutes } from "./ways.ts";
import { isFinal, PROVIDERS, type World } from "./world.ts";

function routes(w: World): Route[] {
  const session = (id: string | undefined): World["sessions"][number] | undefined => w.sessions.find((s) => s.id === id);
  return [
    ["GET", /^\/api\/v1\/me$/, () => ok(me(w))],
    ["POST", /^\/api\/v1\/logout$/, () => ((w.signedIn = false), { status: 204 })],
    ["GET", /^\/api\/v1\/providers$/, () => ok({ providers: PROVIDERS })],
    ["GET", /^\/api\/v1\/credentials$/, () => ok({ credentials: w.credentials })],
    ["DELETE", /^\/api\/v1\/credentials\/(\w+)$/, (m) => {
      w.credentials = w.credentials.filter((c) => c.id !== m[1]);
      w.emit({ kind: "credential_deleted", message: "Deleted." });
      return { status: 204 };
    }],
    ["POST", /^\/api\/v1\/credentials\/(\w+)\/deliver$/, async (m) => {
      await new Promise((r) => setTimeout(r, 600));
      const c = w.deliver(m[1] ?? "");
      return c ? ok(c) : missing();
    }],
    ["GET", /^\/api\/v1\/sessions$/, () => ok({ sessions: w.sessions })],
    ["POST", /^\/api\/v1\/sessions$/, (_, body) => {
      if (w.full) return problem(503, "queue_full", "All places are taken, and as many people wait for one as this server allows. Please try again in a few minutes.");
      const p = PROVIDERS.find((x) => x.name === body["provider"]);
      return p ? ok(w.start(p.name), 201) : problem(422, "provider_unknown", "This server does not know that tool.");
    }],
    ["GET", /^\/api\/v1\/sessions\/(\w+)$/, (m) => ok(session(m[1])) ],
    ["DELETE", /^\/api\/v1\/sessions\/(\w+)$/, (m) => {
      const s = session(m[1]);
      if (!s) return missing();
      if (isFinal(s.state)) return problem(409, "conflict", "This sign-in has ended already.");
      w.move(s.id, "cancelled");
      return ok(s);
    }],
    ["POST", /^\/api\/v1\/sessions\/(\w+)\/tickets$/, (m) => (session(m[1]) ? ok(w.ticket(), 201) : missing())],
    ["GET", /^\/api\/v1\/sessions\/(\w+)\/webrtc$/, (m) => (session(m[1]) ? ok({ enabled: false, ice_servers: [] }) : missing())],
    ["DELETE", /^\/api\/v1\/sessions\/\w+\/webrtc\/\w+$/, () => (w.seen.videosEnded++, ok({ input: 0 }))],
    ["POST", /^\/api\/v1\/machines$/, () => ok(w.machine())],
    ["GET", /^\/api\/v1\/machines$/, () => ok({ machines: w.machines })],
    ["POST", /^\/api\/v1\/machines\/(\w+)\/tickets$/, () => {
      if (w.notReady === 0) return ok(w.ticket(), 201);
      w.notReady--;
      return problem(503, "not_ready", "The server is just starting or stopping. Please try again in a moment.");
    }],
    ...wayRoutes(w),
    // The director's desk, for the pictures and for playing by hand.
    ["POST", /^\/mock\/reset$/, (_, body) => {
      w.reset();
      w.mode = body["mode"] === "manual" ? "manual" : "auto";
      return { status: 204 };
    }],
    ["POST", /^\/mock\/session$/, (_, body) => {
      const ago = Number(body["ago"] ?? 60_000);
      const s = w.start(String(body["provider"]), ago);
      if (body["until"]) w.walk(s.id, body["until"] as SessionState, ago);
      if (body["end"]) w.move(s.id, body["end"] as SessionState, undefined, body["reason"] as Session["reason"]);
      return ok(s, 201);
    }],
    ["POST", /^\/mock\/move$/, (_, body) => (w.move(String(body["id"]), body["state"] as SessionState), { status: 204 })],
    ["POST", /^\/mock\/progress$/, (_, body) => {
      w.emit({ kind: "progress", session_id: String(body["id"]), message: String(body["message"]) });
      return { status: 204 };
    }],
    ["POST", /^\/mock\/seen$/, () => ok(w.seen)],
    ["POST", /^\/mock\/clipboard$/, (_, body) => {
      for (const say of w.cutText) say(String(body["text"]));
      return { status: 204 };
    }],
    ["POST", /^\/mock\/not-ready$/, (_, body) => ((w.notReady = Number(body["tickets"])), { status: 204 })],
    ["POST", /^\/mock\/full$/, () => ((w.full = true), { status: 204 })],
    ["POST", /^\/mock\/connect$/, () => ((w.connect = true), { status: 204 })],
    ["POST", /^\/mock\/sign-out$/, () => ((w.signedIn = false), { status: 204 })],
  ];
}

const me = (w: World): Me => ({ id: "u1", name: w.ways.me, admin: w.ways.admin, connect: w.connect, version: "0.1.0" });

/** api answers the API's requests and the mock's own; false: not one of them. */
export async function api(w: World, req: IncomingMessage, res: ServerResponse): Promise<boolean> {
  const url = new URL(req.url ?? "/", "http://mock");
  if (!/^\/(api|mock)\//.test(url.pathname)) return false;
  const text = await bodyOf(req);
  const body = (text ? JSON.parse(text) : {}) as Record<string, unknown>;
  if (url.pathname === "/api/v1/login") return send(res, login(w, String(body["code"])));
  if (!w.signedIn && url.pathname.startsWith("/api/")) return send(res, problem(401, "unauthenticated", "Please sign in."));
  if (url.pathname.endsWith("/events")) {
    events(w, url, req, res);
    return true;
  }
  for (const [method, path, handler] of routes(w)) {
    const m = path.exec(url.pathname);
    if (m && method === req.method) {
      const answer = await handler(m, body, url);
      return send(res, answer.status < 300 && answer.status !== 204 && answer.body === undefined ? missing() : answer);
    }
  }
  return send(res, missing());
}

function login(w: World, code: string): Answer {
  if (!w.codes.has(code)) return problem(401, "link_invalid", "This sign-in link was used already or is too old. Ask for a new one.");
  w.signedIn = true;
  return ok(me(w));
}

function events(w: World, url: URL, req: IncomingMessage, res: ServerResponse): void {
  const id = /sessions\/(\w+)\/events/.exec(url.pathname)?.[1];
  const begin = url.searchParams.get("from") === "now" ? w.events.length : 0;
  const after = Number(req.headers["last-event-id"] ?? url.searchParams.get("after") ?? begin);
  res.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  res.write(": hello\n\n");
  const write = (e: World["events"][number]): void => {
    if (e.seq > after && (!id || e.session_id === id)) res.write(`id: ${e.seq}\ndata: ${JSON.stringify(e)}\n\n`);
  };
  w.events.forEach(write);
  const stop = w.listen(write);
  req.on("close", stop);
}

function send(res: ServerResponse, a: Answer): true {
  const type = a.status >= 400 ? "application/problem+json" : "application/json";
  res.writeHead(a.status, a.body === undefined ? {} : { "Content-Type": type });
  res.end(a.body === undefined ? undefined : JSON.stringify(a.body));
  return true;
}

async function bodyOf(req: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of req) parts.push(part as Buffer);
  return Buffer.concat(parts).toString();
}
