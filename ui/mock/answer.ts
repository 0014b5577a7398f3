import type { ProblemCode } from "../src/api/types";

export type Answer = { status: number; body?: unknown };
export type Handler = (m: RegExpExecArray, body: Record<string, unknown>, url: URL) => Answer | Promise<Answer>;
export type Route = [method: string, path: RegExp, handler: Handler];

export const ok = (body: unknown, status = 200): Answer => ({ status, body });

export function problem(status: number, code: ProblemCode, detail: string): Answer {
  return { status, body: { type: `urn:anteroom:problem:${code}`, title: code, status, detail, code } };
}

export const missing = (): Answer => problem(404, "not_found", "There is no such thing, or it belongs to somebody else.");
