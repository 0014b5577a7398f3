// Which screen the person is on, when: with screens that the tests drive, and a
// clock that stands still.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { FALL_MS, HEAD_START_MS, says, TRY_MS, type LadderState } from "../src/viewer/choice";
import { Ladder } from "../src/viewer/ladder";
import { Story } from "../src/viewer/story";
import { rig } from "./ladderRig";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("the start", () => {
  it("is video over UDP where that works, and nothing else is tried", async () => {
    const r = rig();
    await r.up();
    expect(r.on()).toBe("udp");
    expect(r.last("udp").shown).toBe(true);
    await r.pass(120_000);
    expect(r.made).toHaveLength(1);
    expect(r.opened.map((o) => o.to)).toEqual([r.last("udp")]);
  });

  it("is video over TCP where UDP does not get through", async () => {
    const r = rig();
    r.ladder.start();
    await r.pass(HEAD_START_MS);
    r.last("tcp").life.ready();
    await r.pass(0);
    expect(r.on()).toBe("tcp");
    expect(r.last("udp").gone).toBe(true);
    expect(r.last("vnc").gone).toBe(true);
    expect(says(r.states.at(-1) as LadderState)).toContain("over TCP");
  });

  it("tries TCP at once when UDP fails at once", async () => {
    const r = rig();
    r.ladder.start();
    await r.pass(0);
    r.last("udp").life.ended("unreached");
    expect(r.count("tcp")).toBe(1);
  });

  it("is noVNC within three seconds where both fail, and keeps it unseen until then", async () => {
    const r = rig();
    r.ladder.start();
    await r.pass(HEAD_START_MS);
    r.last("vnc").life.ready();
    await r.pass(FALL_MS - HEAD_START_MS - 1);
    expect(r.on()).toBe(null);
    expect(r.last("vnc").shown).toBe(false);
    await r.pass(1);
    expect(FALL_MS).toBeLessThan(3000);
    expect(r.on()).toBe("vnc");
    expect(r.states.at(-1)?.reason).toBe("unreached");
  });

  it("is noVNC as soon as both have failed", async () => {
    const r = rig();
    r.ladder.start();
    await r.pass(0);
    r.last("udp").life.ended("refused");
    r.last("vnc").life.ready();
    r.last("tcp").life.ended("refused");
    await r.pass(0);
    expect(r.on()).toBe("vnc");
  });

  it("is noVNC when the server does not answer the question", async () => {
    const r = rig();
    const never = new Ladder({ ...r.options, offered: () => new Promise(() => undefined) });
    never.start();
    await r.pass(FALL_MS);
    r.last("vnc").life.ready();
    await r.pass(0);
    expect(r.on()).toBe("vnc");
  });

  it.each(["off", "unsupported"] as const)("is noVNC for good when video is %s", async (offered) => {
    const r = rig(offered);
    r.ladder.start();
    await r.pass(0);
    r.last("vnc").life.ready();
    await r.pass(600_000);
    expect(r.on()).toBe("vnc");
    expect(r.made.map((m) => m.transport)).toEqual(["vnc"]);
    expect(r.states.at(-1)?.reason).toBe(offered);
  });

  it("goes up to a video that comes late", async () => {
    const r = rig();
    r.ladder.start();
    await r.pass(HEAD_START_MS);
    r.last("vnc").life.ready();
    await r.pass(FALL_MS);
    expect(r.on()).toBe("vnc");
    r.last("udp").life.ready();
    await r.pass(0);
    expect(r.on()).toBe("udp");
    expect(r.last("vnc").gone).toBe(true);
  });

  it("gives up a try that never shows a picture", async () => {
    const r = rig();
    r.ladder.start();
    await r.pass(0);
    r.last("udp").life.reached();
    await r.pass(TRY_MS);
    expect(r.last("udp").gone).toBe(true);
  });
});

describe("going down", () => {
  it("takes over by noVNC, with what was not applied, when the video stalls", async () => {
    const r = rig();
    const udp = await r.up();
    udp.rest = [{ text: "x" }];
    udp.life.ended("stalled");
    expect(r.states.at(-1)?.phase).toBe("reconnecting");
    expect(udp.did).toContain("release");
    r.last("vnc").life.ready();
    await r.pass(0);
    expect(r.on()).toBe("vnc");
    expect(r.opened.at(-1)).toEqual({ to: r.last("vnc"), left: [{ text: "x" }] });
    expect(says(r.states.at(-1) as LadderState)).toContain("stopped moving");
  });

  it("takes over by TCP where that is there first", async () => {
    const r = rig();
    const udp = await r.up();
    udp.life.ended("stalled");
    r.last("tcp").life.ready();
    await r.pass(0);
    expect(r.on()).toBe("tcp");
    expect(r.last("vnc").gone).toBe(true);
  });

  it("types nothing before the old screen has said what is left, and nothing twice", async () => {
    const r = rig();
    const udp = await r.up();
    udp.rest = [{ text: "x" }];
    let said: () => void = () => undefined;
    udp.leaving = new Promise((done) => (said = done));
    udp.life.ended("broken");
    r.last("vnc").life.ready();
    await r.pass(0);
    expect(r.opened).toHaveLength(1);
    // noVNC breaks too, before it has typed anything.
    r.last("vnc").life.lost();
    said();
    await r.pass(0);
    expect(r.opened).toHaveLength(1);
    r.last("vnc").life.ready();
    await r.pass(0);
    expect(r.opened.at(-1)?.left).toEqual([{ text: "x" }]);
    r.last("vnc").life.lost();
    r.last("vnc").life.ready();
    await r.pass(0);
    expect(r.opened.at(-1)?.left).toEqual([]);
  });

  it("does not come back by itself after another window took over", async () => {
    const r = rig();
    const udp = await r.up();
    udp.life.ended("replaced");
    r.last("vnc").life.ready();
    await r.pass(600_000);
    expect(r.count("udp") + r.count("tcp")).toBe(1);
  });
});

describe("going up", () => {
  async function down(): Promise<ReturnType<typeof rig>> {
    const r = rig();
    const udp = await r.up();
    udp.life.ended("stalled");
    r.last("tcp").life.ended("unreached");
    r.last("vnc").life.ready();
    await r.pass(0);
    expect(r.on()).toBe("vnc");
    return r;
  }

  it("tries again, with longer and longer waits", async () => {
    const r = await down();
    const tried: number[] = [];
    for (let s = 0; s < 200; s++) {
      const before = r.count("udp");
      await r.pass(1000);
      if (r.count("udp") > before) tried.push(s);
      for (const m of r.made) if (!m.gone && m.transport !== "vnc") m.life.ended("unreached");
    }
    const waits = tried.slice(1).map((t, i) => t - (tried[i] ?? 0));
    expect(tried[0]).toBeLessThanOrEqual(4);
    expect(waits.length).toBeGreaterThan(3);
    expect(waits).toEqual([...waits].sort((a, b) => a - b));
    expect(Math.max(...waits)).toBeLessThanOrEqual(62);
  });

  it("goes up once the video shows a picture and the hands are still", async () => {
    const r = await down();
    await r.pass(4000);
    const vnc = r.last("vnc");
    r.world.calm = false;
    r.last("udp").life.ready();
    await r.pass(1500);
    expect(r.on()).toBe("vnc");
    r.world.calm = true;
    await r.pass(200);
    expect(r.on()).toBe("udp");
    expect(vnc.did).toContain("release");
    expect(vnc.gone).toBe(true);
    expect(r.opened.at(-1)?.to).toBe(r.last("udp"));
    expect(r.states.at(-1)?.reason).toBe("");
  });

  it("stays where it is when the video ends while it waits", async () => {
    const r = await down();
    await r.pass(4000);
    r.world.calm = false;
    r.last("udp").life.ready();
    r.last("udp").life.ended("broken");
    r.world.calm = true;
    await r.pass(500);
    expect(r.on()).toBe("vnc");
  });

  it("goes from TCP to UDP, but tries that seldom", async () => {
    const r = rig();
    r.ladder.start();
    await r.pass(HEAD_START_MS);
    r.last("tcp").life.ready();
    await r.pass(20_000);
    expect(r.count("udp")).toBe(1);
    await r.pass(15_000);
    expect(r.count("udp")).toBe(2);
    expect(r.count("tcp")).toBe(1);
    r.last("udp").life.ready();
    await r.pass(200);
    expect(r.on()).toBe("udp");
    expect(r.last("tcp").gone).toBe(true);
  });

  it("tries as soon after a fall from TCP", async () => {
    const r = rig();
    r.ladder.start();
    await r.pass(HEAD_START_MS);
    r.last("tcp").life.ready();
    await r.pass(100);
    r.last("tcp").life.ended("stalled");
    r.last("vnc").life.ready();
    await r.pass(3100);
    expect(r.count("udp")).toBe(2);
  });

  it("tries at once when it is nudged", async () => {
    const r = await down();
    r.ladder.nudge();
    await r.pass(0);
    expect(r.count("udp")).toBe(2);
  });
});

describe("the end", () => {
  it("leaves every screen, once and for good", async () => {
    const r = rig();
    r.ladder.start();
    await r.pass(HEAD_START_MS);
    r.ladder.stop();
    const states = r.states.length;
    await r.pass(60_000);
    expect(r.made.every((m) => m.gone)).toBe(true);
    expect(r.states).toHaveLength(states);
    expect(r.made).toHaveLength(3);
  });
});

describe("the story", () => {
  it("is every change of the transport and its reason, told once", () => {
    const s = new Story();
    s.on({ transport: null, reason: "" });
    s.on({ transport: "udp", reason: "" });
    expect(s.take()).toEqual([]);
    s.on({ transport: null, reason: "stalled" });
    s.on({ transport: "vnc", reason: "stalled" });
    s.on({ transport: "vnc", reason: "unreached" });
    s.on({ transport: "tcp", reason: "unreached" });
    expect(s.take()).toEqual([{ switch: { to: "vnc", reason: "stalled" } }, { switch: { to: "tcp", reason: "better" } }]);
    expect(s.take()).toEqual([]);
  });

  it("says how long the first picture took over noVNC", () => {
    const s = new Story();
    vi.advanceTimersByTime(1200);
    s.on({ transport: "vnc", reason: "off" });
    expect(s.take()).toEqual([{ transport: "vnc", first_frame_ms: 1200, switch: { to: "vnc", reason: "off" } }]);
  });
});
