// What the ladder does when the server itself is gone, or the person never rests:
// fakes are the screens.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { TRY_MS, type LadderState } from "../src/viewer/choice";
import { rig } from "./ladderRig";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("a server that went away", () => {
  const tries = ["udp", "vnc", "udp"];

  it("is asked for the best again where it is back already", async () => {
    const r = rig();
    const udp = await r.up();
    r.ladder.doubt();
    await r.pass(900);
    udp.life.ended("stalled");
    await r.pass(0);
    expect(r.made.map((m) => m.transport)).toEqual(tries);
  });

  it("is asked for the best again when it is found", async () => {
    const r = rig();
    const udp = await r.up();
    r.ladder.doubt();
    r.world.offered = "down";
    await r.pass(900);
    udp.life.ended("stalled");
    await r.pass(1000);
    r.world.offered = "yes";
    r.ladder.nudge();
    await r.pass(0);
    expect(r.made.map((m) => m.transport)).toEqual(tries);
  });

  it("is no reason to leave out TCP much later", async () => {
    const r = rig();
    const udp = await r.up();
    r.ladder.doubt();
    await r.pass(6000);
    udp.life.ended("stalled");
    await r.pass(0);
    expect(r.made.map((m) => m.transport)).toEqual(["udp", "vnc", "tcp"]);
  });
});

describe("hands that are never still", () => {
  it("waits for still hands as long as that takes, and blames no network meanwhile", async () => {
    const r = rig();
    const udp = await r.up();
    udp.life.ended("stalled");
    r.last("tcp").life.ended("unreached");
    r.last("vnc").life.ready();
    await r.pass(4000);
    expect(r.on()).toBe("vnc");
    const { reason } = r.states.at(-1) as LadderState;
    r.world.calm = false;
    r.last("udp").life.ready();
    await r.pass(5 * TRY_MS);
    expect(r.last("udp").gone).toBe(false);
    expect(r.states.at(-1)?.reason).toBe(reason);
    r.world.calm = true;
    await r.pass(200);
    expect(r.on()).toBe("udp");
  });
});
