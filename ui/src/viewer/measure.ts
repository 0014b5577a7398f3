import type { Figures } from "./screen";

const KEPT = 256;
const MEDIAN_OF = 21;

/** Pixels measures from an input to its pixels: the gateway tells which picture
 * was the first with an input, the browser when that picture was seen. Which of
 * the two comes first does not matter. */
export class Pixels {
  private readonly sent = new Map<number, number>();
  private readonly inputs = new Map<number, number>();
  private readonly seen = new Map<number, number>();
  private readonly took: number[] = [];

  input(id: number, at: number): void {
    remember(this.sent, id, at);
  }

  frame(rtp: number, input: number): void {
    const at = this.seen.get(rtp);
    if (at === undefined) remember(this.inputs, rtp, input);
    else this.match(input, at);
  }

  shown(rtp: number, at: number): void {
    const input = this.inputs.get(rtp);
    if (input === undefined) remember(this.seen, rtp, at);
    else {
      this.inputs.delete(rtp);
      this.match(input, at);
    }
  }

  /** The median of the last measurements in milliseconds, or null. */
  get ms(): number | null {
    const sorted = [...this.took].sort((a, b) => a - b);
    return sorted[sorted.length >> 1] ?? null;
  }

  private match(input: number, at: number): void {
    const from = this.sent.get(input);
    if (from === undefined || at < from) return;
    this.sent.delete(input);
    this.took.push(at - from);
    if (this.took.length > MEDIAN_OF) this.took.shift();
  }
}

function remember(map: Map<number, number>, key: number, value: number): void {
  map.set(key, value);
  for (const oldest of map.keys()) {
    if (map.size <= KEPT) break;
    map.delete(oldest);
  }
}

/** What one look at RTCStatsReport gives. */
export interface Look {
  at: number;
  /** Grows with anything that arrives from the other side. */
  arrived: number;
  packets: number;
  bytes: number;
  decoded: number;
  roundTripMs: number | null;
}

interface Row {
  type: string;
  kind?: string;
  state?: string;
  nominated?: boolean;
  bytesReceived?: number;
  packetsReceived?: number;
  messagesReceived?: number;
  responsesReceived?: number;
  framesDecoded?: number;
  currentRoundTripTime?: number;
}

/** look reads a report. at is by performance.now(). */
export function look(report: { forEach(fn: (row: Row) => void): void }, at: number): Look {
  const l: Look = { at, arrived: 0, packets: 0, bytes: 0, decoded: 0, roundTripMs: null };
  report.forEach((r) => {
    if (r.type === "candidate-pair") {
      l.arrived += (r.bytesReceived ?? 0) + (r.packetsReceived ?? 0) + (r.responsesReceived ?? 0);
      if (r.nominated && r.currentRoundTripTime !== undefined) l.roundTripMs = r.currentRoundTripTime * 1000;
    } else if (r.type === "transport") l.arrived += (r.bytesReceived ?? 0) + (r.packetsReceived ?? 0);
    else if (r.type === "data-channel") l.arrived += r.messagesReceived ?? 0;
    else if (r.type === "inbound-rtp" && r.kind === "video") {
      l.arrived += r.packetsReceived ?? 0;
      l.packets = r.packetsReceived ?? 0;
      l.bytes = r.bytesReceived ?? 0;
      l.decoded = r.framesDecoded ?? 0;
    }
  });
  return l;
}

/** figuresOf compares two looks. */
export function figuresOf(before: Look, now: Look): Pick<Figures, "roundTripMs" | "framesPerSecond" | "bitsPerSecond"> {
  const seconds = (now.at - before.at) / 1000;
  if (seconds <= 0) return { roundTripMs: now.roundTripMs, framesPerSecond: null, bitsPerSecond: null };
  return {
    roundTripMs: now.roundTripMs,
    framesPerSecond: (now.decoded - before.decoded) / seconds,
    bitsPerSecond: (8 * (now.bytes - before.bytes)) / seconds,
  };
}

const STALL_MS = 2000;
const PROBE_MS = 700;
const DOUBT_MS = 700;

/** Pulse tells from looks in a row whether a connection is alive: "quiet" when
 * it is time to ask the other side for a sign of life, "stalled" when nothing
 * has arrived for two seconds, or pictures have but none could be shown. Once
 * it is in doubt, it asks at once and waits for less. */
export class Pulse {
  private last: Look | null = null;
  private arrivedAt = 0;
  private pictureAt = 0;
  private doubted = false;
  private doubt0: Look | null = null;

  /** When something arrived last. */
  get heardAt(): number {
    return this.arrivedAt;
  }

  take(l: Look): "alive" | "quiet" | "stalled" {
    const was = this.last;
    this.last = l;
    if (!was || l.arrived !== was.arrived) this.arrivedAt = l.at;
    // Without a new packet of video there is no picture to be missed.
    if (!was || l.decoded !== was.decoded || (l.packets === was.packets && l.at - this.pictureAt < STALL_MS)) this.pictureAt = l.at;
    if (this.doubted) {
      // What had arrived before the doubt says nothing.
      this.doubt0 ??= l;
      this.doubted = l.arrived === this.doubt0.arrived;
      if (this.doubted) return l.at - this.doubt0.at >= DOUBT_MS ? "stalled" : "quiet";
    }
    if (l.at - this.arrivedAt >= STALL_MS || l.at - this.pictureAt >= STALL_MS) return "stalled";
    return l.at - this.arrivedAt >= PROBE_MS ? "quiet" : "alive";
  }

  /** doubt says that the other side may be gone: looks from now on show it. More
   * of it, before they have, does not make it newer. */
  doubt(): void {
    if (this.doubted) return;
    this.doubted = true;
    this.doubt0 = null;
  }

  /** rest starts anew, after a time in which nobody looked. */
  rest(): void {
    this.last = this.doubt0 = null;
  }
}
