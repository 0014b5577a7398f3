// The page's side of the network: fetch, EventSource and WebSocket are replaced
// by fakes that the tests drive.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import * as client from "../src/api/client";
import { ApiError } from "../src/api/errors";
import { EventStream } from "../src/api/events";
import { openWithTicket, SocketClosed } from "../src/api/socket";
import type { SessionEvent } from "../src/api/types";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function answer(status: number, body: unknown): void {
  vi.stubGlobal("fetch", vi.fn(() => Promise.resolve(new Response(typeof body === "string" ? body : JSON.stringify(body), { status }))));
}

describe("client", () => {
  it("turns a problem document into its code and sentence", async () => {
    answer(409, { type: "urn:x", title: "Conflict", status: 409, code: "conflict", detail: "It has ended already." });
    await expect(client.cancelSession("a")).rejects.toMatchObject({ code: "conflict", status: 409, message: "It has ended already." });
  });

  it("does not show what is not the server's", async () => {
    answer(502, "<html>Bad gateway</html>");
    const err: unknown = await client.getMe().catch((e: unknown) => e);
    expect(err).toMatchObject({ code: "bad_answer", temporary: true });
    expect((err as Error).message).not.toContain("<");
  });

  it("names an unreachable server", async () => {
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
    await expect(client.getMe()).rejects.toMatchObject({ code: "network", status: 0, temporary: true });
  });

  it("tells when nobody is signed in", async () => {
    const told = vi.fn();
    client.onUnauthenticated(told);
    answer(401, { type: "urn:x", title: "", status: 401, code: "unauthenticated", detail: "Please sign in." });
    await expect(client.getMe()).rejects.toBeInstanceOf(ApiError);
    expect(told).toHaveBeenCalledOnce();
  });

  it("escapes what goes into a path", async () => {
    answer(200, {});
    await client.getSession("../me?x");
    expect(vi.mocked(fetch).mock.calls[0]?.[0]).toBe("/api/v1/sessions/..%2Fme%3Fx");
  });

  it("accepts an empty answer", async () => {
    vi.stubGlobal("fetch", () => Promise.resolve(new Response(null, { status: 204 })));
    await expect(client.deleteCredential("c")).resolves.toBeUndefined();
  });
});

class FakeSource {
  static all: FakeSource[] = [];
  onopen: (() => void) | null = null;
  onerror: (() => void) | null = null;
  onmessage: ((m: { data: string }) => void) | null = null;
  closed = false;
  constructor(readonly url: string) {
    FakeSource.all.push(this);
  }
  close(): void {
    this.closed = true;
  }
  say(e: object | string): void {
    this.onmessage?.({ data: typeof e === "string" ? e : JSON.stringify(e) });
  }
}

describe("EventStream", () => {
  const event = (seq: number): SessionEvent => ({ seq, kind: "progress", message: "", at: "2026-01-01T00:00:00Z" });
  const follow = (from?: "now"): { seen: number[]; downs: () => number; stream: EventStream } => {
    FakeSource.all = [];
    vi.stubGlobal("EventSource", FakeSource);
    const seen: number[] = [];
    const onDown = vi.fn();
    const stream = new EventStream("/e", { onEvent: (e) => seen.push(e.seq), onOpen: () => undefined, onDown }, from);
    return { seen, downs: () => onDown.mock.calls.length, stream };
  };
  const last = (): FakeSource => FakeSource.all.at(-1) as FakeSource;

  it("continues after the last event, gives each once, and skips what is not one", () => {
    const { seen, downs, stream } = follow();
    expect(last().url).toBe("/e");
    for (const e of [event(3), event(5), "not json", "null", "{}", event(4), event(5)]) last().say(e);
    last().onerror?.();
    expect(FakeSource.all[0]?.closed).toBe(true);
    expect(downs()).toBe(1);
    vi.advanceTimersByTime(200);
    expect(last().url).toBe("/e?after=5");
    last().onopen?.();
    last().say(event(5));
    last().say(event(6));
    expect(seen).toEqual([3, 5, 6]);
    stream.close();
  });

  it("asks for no history where only the news are wanted, and still misses nothing after the first", () => {
    const { seen, stream } = follow("now");
    expect(last().url).toBe("/e?from=now");
    last().onerror?.();
    vi.advanceTimersByTime(200);
    expect(last().url).toBe("/e?from=now");
    last().onopen?.();
    last().say(event(7));
    last().onerror?.();
    vi.advanceTimersByTime(200);
    expect(last().url).toBe("/e?after=7");
    expect(seen).toEqual([7]);
    stream.close();
  });

  it("waits longer after each failure, and starts over once open", () => {
    const { stream } = follow();
    for (const wait of [200, 500, 1000]) {
      const n = FakeSource.all.length;
      last().onerror?.();
      vi.advanceTimersByTime(wait - 1);
      expect(FakeSource.all).toHaveLength(n);
      vi.advanceTimersByTime(1);
      expect(FakeSource.all).toHaveLength(n + 1);
    }
    last().onopen?.();
    last().onerror?.();
    vi.advanceTimersByTime(200);
    expect(FakeSource.all).toHaveLength(5);
    stream.close();
  });

  it("is silent once closed", () => {
    const { stream } = follow();
    last().onerror?.();
    stream.close();
    vi.advanceTimersByTime(60_000);
    dispatchEvent(new Event("online"));
    expect(FakeSource.all).toHaveLength(1);
  });
});

class FakeSocket {
  static all: FakeSocket[] = [];
  binaryType = "blob";
  onopen: (() => void) | null = null;
  onclose: ((e: { code: number; reason: string }) => void) | null = null;
  sent: string[] = [];
  closed = false;
  constructor(readonly url: string) {
    FakeSocket.all.push(this);
  }
  send(s: string): void {
    this.sent.push(s);
  }
  close(): void {
    this.closed = true;
  }
}

describe("openWithTicket", () => {
  const ticket = (): Promise<{ ticket: string; expires_at: string }> => Promise.resolve({ ticket: "secret", expires_at: "" });
  const open = async (signal = new AbortController().signal): Promise<{ done: Promise<unknown>; socket: FakeSocket }> => {
    FakeSocket.all = [];
    vi.stubGlobal("WebSocket", FakeSocket);
    const done = openWithTicket(ticket, "ws://x/vnc", signal).catch((e: unknown) => e);
    await vi.advanceTimersByTimeAsync(0);
    return { done, socket: FakeSocket.all[0] as FakeSocket };
  };

  it("sends the ticket first, and never in the address", async () => {
    const { done, socket } = await open();
    expect(socket.url).not.toContain("secret");
    socket.onopen?.();
    expect(socket.sent).toEqual(['{"ticket":"secret"}']);
    expect(socket.binaryType).toBe("arraybuffer");
    expect(await done).toBe(socket);
  });

  it("says why it was refused, in the server's words if there are any", async () => {
    const a = await open();
    a.socket.onclose?.({ code: 4409, reason: "It has ended." });
    expect(await a.done).toEqual(new SocketClosed(4409, "It has ended."));
    const b = await open();
    b.socket.onclose?.({ code: 1006, reason: "" });
    expect(((await b.done) as Error).message).toBe("The connection to the server broke.");
  });

  it("gives up on a signal and closes the socket", async () => {
    const abort = new AbortController();
    const { done, socket } = await open(abort.signal);
    abort.abort();
    expect(await done).toBeInstanceOf(SocketClosed);
    expect(socket.closed).toBe(true);
  });

  it("passes on why there was no ticket", async () => {
    const refused = new ApiError("not_found", 404, "There is no such session.");
    await expect(openWithTicket(() => Promise.reject(refused), "ws://x", new AbortController().signal)).rejects.toBe(refused);
  });
});
