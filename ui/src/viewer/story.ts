import { RANK, type LadderState } from "./choice";
import type { Transport } from "./screen";

/** What the server is told about a page's transports; of its JSON on the
 * ordered channel. */
export interface Stats {
  transport?: Transport;
  first_frame_ms?: number;
  switch?: { to: Transport; reason: string };
}

const MAX_UNTOLD = 16;

/** Story is which transport the page was on and why it changed, until it can be
 * told: noVNC's connection takes no words. */
export class Story {
  private last: Transport | null = null;
  private untold: Stats[] = [];
  private readonly began = performance.now();

  /** on takes every state of the ladder. */
  on({ transport, reason }: Pick<LadderState, "transport" | "reason">): void {
    const before = this.last;
    if (transport === null || transport === before) return;
    this.last = transport;
    if (before === null && transport !== "vnc") return; // the video tells of itself
    const better = before !== null && RANK[transport] > RANK[before];
    const stats: Stats = { switch: { to: transport, reason: better ? "better" : reason || "broken" } };
    if (before === null) Object.assign(stats, { transport, first_frame_ms: Math.round(performance.now() - this.began) });
    if (this.untold.length < MAX_UNTOLD) this.untold.push(stats);
  }

  /** take is what has not been told. */
  take(): Stats[] {
    const all = this.untold;
    this.untold = [];
    return all;
  }
}
