import { describe, expect, it } from "vitest";
import { Backoff } from "../src/lib/backoff";
import { observeServerDate, serverNow } from "../src/lib/clock";
import { routeOf } from "../src/lib/router";
import { clip, keysBetween, keysymOf, keysymsOf, KEY_BACKSPACE, KEY_ENTER, KEY_TAB } from "../src/lib/text";
import { agoOf, clockOf, tookOf } from "../src/lib/time";

describe("Backoff", () => {
  it("grows, stays at its longest, and starts over", () => {
    const b = new Backoff();
    expect([1, 2, 3, 4, 5, 6, 7].map(() => b.next())).toEqual([200, 500, 1000, 2000, 4000, 4000, 4000]);
    expect(b.count).toBe(7);
    b.reset();
    expect(b.count).toBe(0);
    expect(b.next()).toBe(200);
  });
});

describe("server time", () => {
  it("follows the Date of answers, but not by less than its precision", () => {
    const now = Date.parse("2026-01-01T00:00:00Z");
    observeServerDate("Thu, 01 Jan 2026 00:05:00 GMT", now);
    expect(serverNow(now)).toBe(now + 300_000);
    observeServerDate("Thu, 01 Jan 2026 00:00:01 GMT", now);
    expect(serverNow(now)).toBe(now);
    observeServerDate("Thu, 01 Jan 2026 00:05:00 GMT", now);
    for (const nothing of [null, "", "soon"]) observeServerDate(nothing, now);
    expect(serverNow(now)).toBe(now + 300_000);
  });
});

describe("times in words", () => {
  it.each([
    [-5, "0:00"],
    [7_900, "0:07"],
    [750_000, "12:30"],
    [3_723_000, "1:02:03"],
  ])("clockOf(%i) is %s", (ms, want) => expect(clockOf(ms)).toBe(want));
  it.each([
    [-3, "< 0.1 s"],
    [49, "< 0.1 s"],
    [420, "0.4 s"],
    [9_949, "9.9 s"],
    [12_400, "12 s"],
    [185_000, "3 min 5 s"],
    [3_780_000, "1 h 3 min"],
  ])("tookOf(%i) is %s", (ms, want) => expect(tookOf(ms)).toBe(want));
  it.each([
    ["2026-01-01T11:59:50Z", "just now"],
    ["2026-01-01T11:55:00Z", "5 minutes ago"],
    ["2026-01-01T11:59:00Z", "1 minute ago"],
    ["2026-01-01T20:00:00Z", "in 8 hours"],
    ["2026-01-11T12:00:00Z", "in 10 days"],
    ["2025-06-01T12:00:00Z", "7 months ago"],
    ["nonsense", ""],
  ])("agoOf(%s) is %s", (at, want) => expect(agoOf(at, Date.parse("2026-01-01T12:00:00Z"))).toBe(want));
});

describe("keys", () => {
  it.each([
    ["a", 0x61],
    ["é", 0xe9],
    ["я", 0x0100044f],
    ["語", 0x01008a9e],
    ["😀", 0x0101f600],
    ["\n", KEY_ENTER],
    ["\t", KEY_TAB],
    ["\u0000", 0],
    ["\u0085", 0],
  ])("%j", (c, want) => expect(keysymOf(c.codePointAt(0) ?? -1)).toBe(want));

  it("types a line break as one Enter, and leaves out what has no key", () => {
    expect(keysymsOf("a\r\nb\u0007")).toEqual([0x61, KEY_ENTER, 0x62]);
  });

  it.each([
    ["", "ab", [0x61, 0x62]],
    ["ab", "a", [KEY_BACKSPACE]],
    ["teh", "the", [KEY_BACKSPACE, KEY_BACKSPACE, 0x68, 0x65]],
    ["x😀", "x", [KEY_BACKSPACE]],
    ["same", "same", []],
  ])("from %j to %j", (before, now, want) => expect(keysBetween(before, now)).toEqual(want));
});

describe("clip", () => {
  it("leaves what fits", () => expect(clip("añ", 3)).toEqual({ text: "añ", cut: false }));
  it("never cuts inside a character", () => {
    expect(clip("añ", 2)).toEqual({ text: "a", cut: true });
    expect(clip("😀😀", 7)).toEqual({ text: "😀", cut: true });
  });
  it("is 256 KiB", () => expect(clip("x".repeat(270_000)).text).toHaveLength(262_143));
});

describe("routeOf", () => {
  it.each([
    ["/", { view: "home" }],
    ["/sessions/abc123", { view: "session", id: "abc123" }],
    ["/sessions/abc123/", { view: "session", id: "abc123" }],
    ["/sessions/", { view: "missing" }],
    ["/sessions/a/b", { view: "missing" }],
    ["/sessions/%2e%2e", { view: "missing" }],
    ["/terminal", { view: "terminal" }],
    ["/activity/", { view: "activity" }],
    ["/ways", { view: "ways" }],
    ["/nowhere", { view: "missing" }],
  ])("%s", (path, want) => expect(routeOf(path)).toEqual(want));
});
