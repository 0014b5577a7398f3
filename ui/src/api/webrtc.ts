// The signalling of the live video, whose bodies are mostly not JSON. Throws
// ApiError only.
import { viewerTicket } from "./client";
import { badAnswer, networkError, problemFrom, type ApiError } from "./errors";
import type { WebRTC, WebRTCParting } from "./types";

/** An offer that was answered; location is where its candidates and its end go. */
export interface Answered {
  sdp: string;
  location: string;
}

const BASE = "/api/v1/sessions/";
const ANSWER_MS = 5_000;
const NO_VIDEO: WebRTC = { enabled: false, ice_servers: [] };

/** videoOffer asks whether the server has live video. One that does not know
 * the question has none. */
export async function videoOffer(session: string, signal: AbortSignal): Promise<WebRTC> {
  const res = await ask(path(session), { signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]) });
  if (res.status === 404 || res.status === 405) return NO_VIDEO;
  if (!res.ok) throw await problem(res);
  const body = (await res.json().catch(() => null)) as Partial<WebRTC> | null;
  if (typeof body?.enabled !== "boolean") throw badAnswer(res.status);
  return { enabled: body.enabled, ice_servers: Array.isArray(body.ice_servers) ? body.ice_servers : [] };
}

/** sendOffer hands over an offer with a ticket of its own. The connections of one
 * window control or watch together. */
export async function sendOffer(session: string, window: string, ticket: string, sdp: string): Promise<Answered> {
  const res = await ask(path(session), {
    method: "POST",
    headers: { "Content-Type": "application/sdp", Accept: "application/sdp", "Anteroom-Ticket": ticket, "Anteroom-Window": window },
    body: sdp,
    signal: AbortSignal.timeout(ANSWER_MS),
  });
  if (!res.ok) throw await problem(res);
  const location = res.headers.get("Location") ?? "";
  // Followed only where it belongs: under this session.
  if (!location.startsWith(`${path(session)}/`)) throw badAnswer(res.status);
  return { sdp: await res.text(), location };
}

export const videoTicket = async (session: string): Promise<string> => (await viewerTicket(session)).ticket;

/** sendCandidates is a trickle; one that is lost costs only time. */
export async function sendCandidates(location: string, fragment: string): Promise<void> {
  await ask(location, { method: "PATCH", headers: { "Content-Type": "application/trickle-ice-sdpfrag" }, body: fragment });
}

/** sendRestart asks for an ICE restart, and resolves to the server's new name and
 * password as a fragment. */
export async function sendRestart(location: string, fragment: string): Promise<string> {
  const headers = { "Content-Type": "application/trickle-ice-sdpfrag" };
  const res = await ask(location, { method: "PATCH", headers, body: fragment, signal: AbortSignal.timeout(ANSWER_MS) });
  if (!res.ok) throw await problem(res);
  return res.text();
}

/** endVideo ends a connection, also while the page goes away. It resolves to
 * the id of the last input of the ordered channel that the server has handed
 * on: it hands on nothing more. null where the server does not say. */
export async function endVideo(location: string): Promise<number | null> {
  const res = await ask(location, { method: "DELETE", keepalive: true });
  const body = (await res.json().catch(() => null)) as Partial<WebRTCParting> | null;
  return res.ok && typeof body?.input === "number" ? body.input : null;
}

const path = (session: string): string => `${BASE}${encodeURIComponent(session)}/webrtc`;

async function ask(url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, { credentials: "same-origin", cache: "no-store", ...init });
  } catch {
    throw networkError();
  }
}

async function problem(res: Response): Promise<ApiError> {
  return problemFrom(res.status, await res.json().catch(() => null));
}
