import type { Problem, ProblemCode } from "./types";

/** What can go wrong between the page and the server: a problem that the
 * server named, no answer at all, or an answer that is not the server's. */
export type ErrorCode = ProblemCode | "network" | "bad_answer";

/** ApiError is the only error that the client throws. Its message is a
 * sentence that may be shown to the person. */
export class ApiError extends Error {
  constructor(
    readonly code: ErrorCode,
    readonly status: number,
    message: string,
  ) {
    super(message);
    this.name = "ApiError";
  }

  /** Whether the same request may work a moment later. */
  get temporary(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

const UNREACHABLE = "The server cannot be reached. Check that it is running and that you are online.";
const BAD_ANSWER = "The server gave an answer that this page does not understand. Reload the page; it may have been updated.";

export function networkError(): ApiError {
  return new ApiError("network", 0, UNREACHABLE);
}

export function badAnswer(status: number): ApiError {
  return new ApiError("bad_answer", status, BAD_ANSWER);
}

/** problemFrom reads a problem document; whatever else came (a proxy's page,
 * for one) becomes bad_answer. */
export function problemFrom(status: number, body: unknown): ApiError {
  if (isProblem(body)) return new ApiError(body.code, status, body.detail || body.title);
  return badAnswer(status);
}

/** sentence is what to show for anything that was thrown. */
export function sentence(err: unknown): string {
  return err instanceof ApiError ? err.message : "Something went wrong in this page. Reload it, please.";
}

function isProblem(body: unknown): body is Problem {
  if (typeof body !== "object" || body === null) return false;
  const p = body as Partial<Record<keyof Problem, unknown>>;
  return typeof p.code === "string" && typeof p.title === "string" && typeof p.detail === "string";
}
