import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it, vi } from "vitest";
import * as client from "../src/api/client";
import type { Port, PortState, SessionEvent } from "../src/api/types";
import { EMPTY, isTrouble, withEvent, type Model } from "../src/session/model";
import { asSentence, countsOf, matching, problemOf, shortageOf, stateAt } from "../src/ways/model";

afterEach(() => void vi.unstubAllGlobals());

const NOW = Date.parse("2026-01-01T12:00:00Z");
const LATER = "2026-01-01T13:00:00Z";
const BEFORE = "2026-01-01T11:00:00Z";

function port(state: PortState, more: Partial<Port> = {}): Port {
  return { port: "proxy.example:10001", state, configured: true, in_use: false, refuses: [], ...more };
}

/** ports is so many used and so many free ones. */
function ports(used: number, free: number): Port[] {
  return [...Array.from({ length: used }, () => port("assigned", { user: "ada" })), ...Array.from({ length: free }, () => port("free"))];
}

describe("a port's state", () => {
  it("is free once its rest is over", () => {
    expect(stateAt(port("resting", { rest_until: LATER }), NOW)).toBe("resting");
    expect(stateAt(port("resting", { rest_until: BEFORE }), NOW)).toBe("free");
    expect(countsOf([...ports(2, 1), port("resting", { rest_until: BEFORE }), port("quarantined")], NOW)).toEqual({
      assigned: 2,
      free: 2,
      resting: 0,
      quarantined: 1,
    });
  });
});

describe("shortageOf", () => {
  it.each([
    [79, 21, null],
    [80, 20, false],
    [10, 10, null],
    [10, 9, false],
    [100, 0, true],
    [0, 0, true],
  ])("%i used and %i free", (used, free, bad) => expect(shortageOf(ports(used, free), NOW)?.bad ?? null).toBe(bad));

  it("counts a user's port in quarantine as used, and no port that is not configured", () => {
    const many = [...ports(79, 20), port("quarantined", { user: "ada" })];
    expect(shortageOf(many, NOW)?.text).toContain("80 of 100 ports");
    expect(shortageOf([...ports(79, 21), port("assigned", { user: "mary", configured: false })], NOW)).toBeNull();
    expect(shortageOf(ports(1, 1), NOW)?.text).toMatch(/^1 of 2 ports has a user, and 1 is free\./);
  });
});

describe("matching", () => {
  const all = [
    port("assigned", { user: "Ada", exit_address: "203.0.113.7" }),
    port("free", { port: "proxy.example:10002" }),
    port("resting", { port: "proxy.example:10003", rest_until: BEFORE }),
  ];
  it.each<[PortState | "all", string, number]>([
    ["all", "", 3],
    ["free", "", 2],
    ["all", " ada ", 1],
    ["all", "113.7", 1],
    ["all", ":1000", 3],
    ["free", "10003", 1],
    ["assigned", "10003", 0],
  ])("%s, %j", (state, text, n) => expect(matching(all, state, text, NOW)).toHaveLength(n));
});

describe("words", () => {
  it.each([
    ["it is broken", "it is broken."],
    ["Gone!", "Gone!"],
    [" ", ""],
  ])("asSentence(%j)", (text, want) => expect(asSentence(text)).toBe(want));

  it("tell what a look ran into, also by a code that is new", () => {
    expect(problemOf({ port: "p:1", refuses: [] })).toBe("");
    expect(problemOf({ port: "p:1", refuses: [], problem: "exit_not_verified" })).toContain("could not be seen");
    expect(problemOf({ port: "p:1", refuses: [], problem: "brand_new" })).toContain("brand_new");
  });
});

describe("news of the way out", () => {
  const told = (message: string): Model => withEvent(EMPTY, { seq: 1, kind: "progress", message, at: BEFORE } as SessionEvent);

  it("stands beside what is to be done, until the next state", () => {
    const code = told("The code to type in is ABCD.");
    const both = withEvent(code, { seq: 2, kind: "progress", message: "Your way out to the internet does not answer.", at: BEFORE });
    expect(both).toMatchObject({ progress: "The code to type in is ABCD.", way: "Your way out to the internet does not answer." });
    expect(withEvent(both, { seq: 3, kind: "state", state: "capturing", message: "", at: BEFORE }).way).toBe("");
  });

  // The page knows them by how they begin; here are all that the server has.
  it("is every sentence that the server has for it", () => {
    const source = ["control/ways.go", "ways/ways.go", "ways/run.go"].map((p) => readFileSync(`../internal/${p}`, "utf8")).join("\n");
    const sentences = [...source.matchAll(/(?:progress\(ctx, now, |[tT]ell\(\w+, |WayNews\(\w+, |sentence :?= )"([^"]+)"/g)].map((m) => m[1] ?? "");
    expect(new Set(sentences).size).toBeGreaterThanOrEqual(4);
    for (const s of sentences) {
      expect(told(s).way).toBe(s);
      expect(isTrouble(s)).toBe(!/works again/.test(s));
    }
  });
});

describe("the ports' requests", () => {
  it.each<[string, () => Promise<unknown>, unknown]>([
    ["assign", () => client.assignPort("[2001:db8::1]:1", "ada"), { user: "ada" }],
    ["release", () => client.releasePort("[2001:db8::1]:1", true), { now: true }],
    ["quarantine", () => client.quarantinePort("[2001:db8::1]:1", "odd"), { reason: "odd" }],
    ["pin", () => client.pinPort("[2001:db8::1]:1", "203.0.113.7"), { exit_address: "203.0.113.7" }],
    ["pin", () => client.pinPort("[2001:db8::1]:1", ""), {}],
    ["check", () => client.checkPort("[2001:db8::1]:1"), null],
  ])("%s", async (action, ask, body) => {
    const asked = vi.fn<typeof fetch>(() => Promise.resolve(new Response("{}")));
    vi.stubGlobal("fetch", asked);
    await ask();
    const [url, init] = asked.mock.calls[0] ?? [];
    expect(url).toBe(`/api/v1/egress/ports/%5B2001%3Adb8%3A%3A1%5D%3A1/${action}`);
    expect(init?.method).toBe("POST");
    expect(init?.body === undefined ? null : JSON.parse(String(init.body))).toEqual(body);
  });
});
