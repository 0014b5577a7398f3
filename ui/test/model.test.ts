import { describe, expect, it } from "vitest";
import type { Session, SessionEvent, SessionState } from "../src/api/types";
import { EMPTY, inQueue, isFailure, isFinal, later, stateOf, stepsOf, withEvent, type Model } from "../src/session/model";

const at = (s: number): string => new Date(s * 1000).toISOString();

function play(...events: Partial<SessionEvent>[]): Model {
  return events.reduce<Model>((m, e, i) => withEvent(m, { seq: i + 1, kind: "state", message: "", at: at(i), ...e }), EMPTY);
}

const moves = (...states: SessionState[]): Partial<SessionEvent>[] => states.map((state) => ({ kind: "state", state }));

describe("states", () => {
  it.each<[SessionState, boolean, boolean]>([
    ["requested", false, false],
    ["starting", false, false],
    ["waiting", false, false],
    ["capturing", false, false],
    ["storing", false, false],
    ["delivering", false, false],
    ["completed", true, false],
    ["failed", true, true],
    ["expired", true, true],
    ["cancelled", true, true],
  ])("%s", (s, final, failure) => {
    expect(isFinal(s)).toBe(final);
    expect(isFailure(s)).toBe(failure);
  });

  it("only go forward, and never out of a final one", () => {
    expect(later("waiting", "starting")).toBe("waiting");
    expect(later("waiting", "cancelled")).toBe("cancelled");
    expect(later("completed", "failed")).toBe("completed");
    expect(later(null, "waiting")).toBe("waiting");
    expect(later("waiting", null)).toBe("waiting");
  });

  it("come from whichever source is ahead", () => {
    const row = { state: "waiting" } as Session;
    expect(stateOf(row, play(...moves("requested", "starting")))).toBe("waiting");
    expect(stateOf(row, play(...moves("capturing")))).toBe("capturing");
    expect(stateOf(null, EMPTY)).toBe("requested");
  });
});

describe("stepsOf", () => {
  const status = (m: Model, s: SessionState): string => stepsOf(s, m, 0).map((x) => x.status[0]).join("");

  it.each<[SessionState[], string]>([
    [["requested"], "cttttt"],
    [["requested", "starting"], "cttttt"],
    [["requested", "starting", "waiting"], "dctttt"],
    [["requested", "starting", "waiting", "capturing", "storing"], "dddctt"],
    [["requested", "starting", "waiting", "capturing", "storing", "delivering", "completed"], "dddddd"],
    [["requested", "starting", "failed"], "fttttt"],
    [["requested", "starting", "waiting", "expired"], "dftttt"],
    [["requested", "starting", "waiting", "capturing", "cancelled"], "ddfttt"],
  ])("%j", (states, want) => {
    expect(status(play(...moves(...states)), states.at(-1) ?? "requested")).toBe(want);
  });

  it("knows how long each step took", () => {
    const steps = stepsOf("capturing", play(...moves("requested", "starting", "waiting", "capturing")), null);
    expect(steps.map(({ from, to }) => [from, to])).toEqual([
      [0, 2000],
      [2000, 3000],
      [3000, null],
      [null, null],
      [null, null],
      [null, null],
    ]);
  });

  it("ends the step that failed", () => {
    expect(stepsOf("failed", play(...moves("requested", "starting", "waiting", "failed")), null)[1]).toMatchObject({ from: 2000, to: 3000 });
  });

  it("does without events, by the row alone", () => {
    const steps = stepsOf("waiting", EMPTY, 5000);
    expect(steps[0]).toMatchObject({ status: "done", from: 5000, to: null });
    expect(steps[1]).toMatchObject({ status: "current", from: null, to: null });
  });
});

describe("withEvent", () => {
  it("keeps the log apart and bounded", () => {
    let m = EMPTY;
    for (let i = 1; i <= 2100; i++) m = withEvent(m, { seq: i, kind: "log", message: `line ${i}`, at: at(i) });
    expect(m.log).toHaveLength(2000);
    expect(m.log.at(-1)).toBe("line 2100");
    expect(m.events).toHaveLength(0);
  });

  it("shows progress until the next state", () => {
    const tried = play({ kind: "state", state: "starting" }, { kind: "progress", message: "Trying another machine." });
    expect(tried.progress).toBe("Trying another machine.");
    expect(withEvent(tried, { seq: 3, kind: "state", state: "waiting", message: "", at: at(3) }).progress).toBe("");
  });

  it("tells of a place in the queue until the sign-in starts", () => {
    const asked = play({ kind: "state", state: "requested" });
    expect(inQueue("requested", asked)).toBe(false);
    const said = (m: Model, seq: number, message: string): Model => withEvent(m, { seq, kind: "progress", message, at: at(seq) });
    const third = said(asked, 2, "2 people are before you. Your sign-in starts by itself when it is your turn.");
    expect(inQueue("requested", third)).toBe(true);
    expect(third.progress).toMatch(/^2 people are before you\./);
    const next = said(third, 3, "You are next: your sign-in starts as soon as a place is free.");
    expect(next.progress).toMatch(/^You are next/);
    const begun = withEvent(next, { seq: 4, kind: "state", state: "starting", message: "", at: at(4) });
    expect([begun.progress, inQueue("starting", begun)]).toEqual(["", false]);
  });

  it("takes a machine for destroyed only while no other was made", () => {
    expect(play({ kind: "machine_destroyed" }).destroyed).toBe(true);
    expect(play({ kind: "machine_destroyed" }, { kind: "machine_created" }).destroyed).toBe(false);
  });
});
