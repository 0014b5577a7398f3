// What the ladder does when the server itself is gone: fakes are the screens.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
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
