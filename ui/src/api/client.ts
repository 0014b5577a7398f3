// The one place that speaks HTTP. Every function throws ApiError only.
import { observeServerDate } from "../lib/clock";
import { badAnswer, networkError, problemFrom } from "./errors";
import type { Credential, Egress, Machine, Me, Port, PortList, PortReport, Provider, Session, SessionList, Ticket } from "./types";

const BASE = "/api/v1";
const SHORT_MS = 15_000;
// Making a machine or delivering to one waits for the machine.
const LONG_MS = 120_000;

interface Options {
  method?: "GET" | "POST" | "DELETE";
  body?: unknown;
  headers?: Record<string, string>;
  timeoutMs?: number;
  signal?: AbortSignal | undefined;
}

let unauthenticated: () => void = () => undefined;

/** onUnauthenticated sets what is called when any request finds that nobody is
 * signed in (any more). The failed request still throws. */
export function onUnauthenticated(fn: () => void): void {
  unauthenticated = fn;
}

async function request<T>(path: string, o: Options = {}): Promise<T> {
  const limit = AbortSignal.timeout(o.timeoutMs ?? SHORT_MS);
  const headers: Record<string, string> = { Accept: "application/json", ...o.headers };
  const init: RequestInit = {
    method: o.method ?? "GET",
    headers,
    credentials: "same-origin",
    cache: "no-store",
    signal: o.signal ? AbortSignal.any([o.signal, limit]) : limit,
  };
  if (o.body !== undefined) {
    headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(o.body);
  }
  let res: Response;
  let text: string;
  try {
    res = await fetch(BASE + path, init);
    text = await res.text();
  } catch (err) {
    if (o.signal?.aborted) throw err;
    throw networkError();
  }
  observeServerDate(res.headers.get("Date"));
  if (res.ok && text === "") return undefined as T;
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw badAnswer(res.status);
  }
  if (res.ok) return body as T;
  const problem = problemFrom(res.status, body);
  if (problem.code === "unauthenticated") unauthenticated();
  throw problem;
}

const seg = encodeURIComponent;

export const getMe = (): Promise<Me> => request("/me");
export const login = (code: string): Promise<Me> => request("/login", { method: "POST", body: { code } });
export const logout = (): Promise<void> => request("/logout", { method: "POST" });

export async function listProviders(signal?: AbortSignal): Promise<Provider[]> {
  return (await request<{ providers: Provider[] }>("/providers", { signal })).providers;
}

export async function listCredentials(signal?: AbortSignal): Promise<Credential[]> {
  return (await request<{ credentials: Credential[] }>("/credentials", { signal })).credentials;
}

export const deleteCredential = (id: string): Promise<void> =>
  request(`/credentials/${seg(id)}`, { method: "DELETE" });

export const deliverCredential = (id: string): Promise<Credential> =>
  request(`/credentials/${seg(id)}/deliver`, { method: "POST", timeoutMs: LONG_MS });

export function listSessions(o: { limit?: number; before?: string; signal?: AbortSignal } = {}): Promise<SessionList> {
  const q = new URLSearchParams();
  if (o.limit) q.set("limit", String(o.limit));
  if (o.before) q.set("before", o.before);
  const query = q.toString();
  return request(`/sessions${query ? `?${query}` : ""}`, { signal: o.signal });
}

export const getSession = (id: string, signal?: AbortSignal): Promise<Session> =>
  request(`/sessions/${seg(id)}`, { signal });

export const cancelSession = (id: string): Promise<Session> => request(`/sessions/${seg(id)}`, { method: "DELETE" });

/** startSession starts a sign-in. key makes a repeat after a lost answer find
 * the session that the first request made. */
export function startSession(provider: string, key: string, size: { width: number; height: number }): Promise<Session> {
  const body = {
    provider,
    locale: navigator.language,
    languages: navigator.languages.slice(0, 10),
    time_zone: Intl.DateTimeFormat().resolvedOptions().timeZone,
    ...size,
  };
  return request("/sessions", { method: "POST", body, headers: { "Idempotency-Key": key } });
}

export async function listMachines(signal?: AbortSignal): Promise<Machine[]> {
  return (await request<{ machines: Machine[] }>("/machines", { signal })).machines;
}

export const ensureMachine = (): Promise<Machine> => request("/machines", { method: "POST", timeoutMs: LONG_MS });

export const viewerTicket = (session: string, signal?: AbortSignal): Promise<Ticket> =>
  request(`/sessions/${seg(session)}/tickets`, { method: "POST", signal });

export const terminalTicket = (machine: string, signal?: AbortSignal): Promise<Ticket> =>
  request(`/machines/${seg(machine)}/tickets`, { method: "POST", signal });

export const getEgress = (signal?: AbortSignal): Promise<Egress> => request("/egress", { signal });

export const listPorts = (signal?: AbortSignal): Promise<PortList> => request("/egress/ports", { signal });

const onPort = <T>(port: string, action: string, body?: object): Promise<T> =>
  request(`/egress/ports/${seg(port)}/${action}`, { method: "POST", body, timeoutMs: LONG_MS });

export const assignPort = (port: string, user: string): Promise<Port> => onPort(port, "assign", { user });
export const releasePort = (port: string, now: boolean): Promise<void> => onPort(port, "release", { now });
export const quarantinePort = (port: string, reason: string): Promise<void> => onPort(port, "quarantine", { reason });
/** pinPort accepts an exit address; an empty one stands for the next that is seen. */
export const pinPort = (port: string, address: string): Promise<Port> => onPort(port, "pin", address ? { exit_address: address } : {});
export const checkPort = (port: string): Promise<PortReport> => onPort(port, "check");

/** socketURL turns a path of the API into a WebSocket address of this origin. */
export function socketURL(path: string): string {
  const url = new URL(BASE + path, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

export const viewerSocketURL = (session: string): string => socketURL(`/sessions/${seg(session)}/vnc`);

export const terminalSocketURL = (machine: string, cols: number, rows: number): string =>
  socketURL(`/machines/${seg(machine)}/terminal?cols=${cols}&rows=${rows}`);

export const sessionEventsURL = (session: string): string => `${BASE}/sessions/${seg(session)}/events`;
export const allEventsURL = `${BASE}/events`;
