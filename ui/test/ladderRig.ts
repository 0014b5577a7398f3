// Screens that a test drives, and a Ladder over them. Needs fake timers.
import { vi } from "vitest";
import type { LadderOptions, LadderState, Offered } from "../src/viewer/choice";
import { Ladder } from "../src/viewer/ladder";
import type { Life, Screen, Transport, Typed, VncLife } from "../src/viewer/screen";

export interface Rig {
  options: LadderOptions;
  ladder: Ladder;
  made: Fake[];
  states: LadderState[];
  opened: { to: Screen; left: readonly Typed[] }[];
  world: { offered: Offered | "down"; calm: boolean; holds: number };
  last: (transport: Transport) => Fake;
  count: (transport: Transport) => number;
  pass: (ms: number) => Promise<unknown>;
  on: () => Transport | null;
  up: () => Promise<Fake>;
}

export class Fake implements Screen {
  gone = false;
  shown = false;
  idle = true;
  rest: Typed[] = [];
  readonly did: string[] = [];
  leaving: Promise<void> = Promise.resolve();

  constructor(
    readonly transport: Transport,
    readonly life: VncLife,
  ) {}

  show(): void {
    this.shown = true;
  }
  key(keysym: number, down: boolean): void {
    if (down) this.did.push(String.fromCodePoint(keysym));
  }
  text(text: string): void {
    this.did.push(text);
  }
  clipboard(): void {}
  release(): void {
    this.did.push("release");
  }
  settled(): boolean {
    return this.idle;
  }
  takeControl(): void {}
  nudge(): void {}
  doubt(): void {}
  figures(): Promise<null> {
    return Promise.resolve(null);
  }
  async leave(): Promise<Typed[]> {
    this.gone = true;
    await this.leaving;
    return this.rest;
  }
}

export function rig(offered: Offered | "down" = "yes"): Rig {
  const made: Fake[] = [];
  const states: LadderState[] = [];
  const opened: { to: Screen; left: readonly Typed[] }[] = [];
  const world = { offered, calm: true, holds: 0 };
  const make = (transport: Transport, life: Life): Fake => {
    const f = new Fake(transport, life as VncLife);
    made.push(f);
    return f;
  };
  const options: LadderOptions = {
    offered: () => (world.offered === "down" ? Promise.reject(new Error("down")) : Promise.resolve(world.offered)),
    video: make,
    vnc: (life) => make("vnc", life),
    typist: {
      hold: () => world.holds++,
      open: (to, left) => opened.push({ to, left }),
    },
    calm: () => world.calm,
    onState: (s) => states.push(s),
    onScreen: () => undefined,
  };
  const ladder = new Ladder(options);
  const last = (transport: Transport): Fake => {
    const f = made.findLast((m) => m.transport === transport);
    if (!f) throw new Error(`no ${transport} was tried`);
    return f;
  };
  const count = (transport: Transport): number => made.filter((m) => m.transport === transport).length;
  const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);
  const on = (): Transport | null => states.at(-1)?.transport ?? null;
  /** Video over UDP, working. */
  const up = async (): Promise<Fake> => {
    ladder.start();
    await pass(0);
    last("udp").life.reached();
    last("udp").life.ready();
    await pass(0);
    return last("udp");
  };
  return { options, ladder, made, states, opened, world, last, count, pass, on, up };
}
