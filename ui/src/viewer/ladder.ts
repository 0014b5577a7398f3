import { ASK_AGAIN_MS, DOUBT_MS, FALL_MS, HEAD_START_MS, RANK, STABLE_MS, TRY_MS, WAITS, type LadderOptions, type Offered, type Reason } from "./choice";
import type { Ended, Screen, Typed, VncPhase } from "./screen";

interface Try {
  screen: Screen;
  ready: boolean;
  reached: boolean;
  limit: ReturnType<typeof setTimeout>;
}

type Timer = ReturnType<typeof setTimeout> | undefined;

/** Ladder keeps one session's screen on the best transport that works: video
 * over UDP, video over TCP, noVNC. It goes down at once, and up only when the
 * better one shows a picture and the person's hands are still. */
export class Ladder {
  private current: Screen | null = null;
  private readonly tries = new Map<"udp" | "tcp", Try>();
  private vnc: Screen | null = null;
  private vncReady = false;
  private vncPhase: VncPhase = { phase: "connecting", failures: 0, why: "" };
  private falling = false;
  private stopped = false;
  private everShown = false;
  private reason: Reason = "";
  private doubtedAt = -Infinity;
  private barred = false;
  private waited = { vnc: 0, tcp: 0 };
  private left: Promise<Typed[]> = Promise.resolve([]);
  private readonly abort = new AbortController();
  private climbTimer: Timer;
  private headStart: Timer;
  private fallTimer: Timer;
  private calmTimer: Timer;
  private stableTimer: Timer;

  constructor(private readonly o: LadderOptions) {}

  /** start begins; the person has noVNC within FALL_MS at the latest. */
  start(): void {
    this.o.typist.hold();
    this.fallTimer = setTimeout(() => this.fall(), FALL_MS);
    this.report();
    void this.climb();
  }

  /** stop ends every screen, for good. */
  stop(): void {
    if (this.stopped) return;
    this.stopped = true;
    this.abort.abort();
    for (const t of [this.climbTimer, this.headStart, this.fallTimer, this.calmTimer, this.stableTimer]) clearTimeout(t);
    for (const kind of [...this.tries.keys()]) this.drop(kind);
    if (this.vnc !== this.current) void this.vnc?.leave();
    void this.current?.leave();
    this.vnc = null;
  }

  get screen(): Screen | null {
    return this.current;
  }

  /** nudge looks at once whether what there is is alive, and tries at once what
   * waits for another try. */
  nudge(): void {
    this.current?.nudge();
    if (this.vnc !== this.current) this.vnc?.nudge();
    if (this.climbTimer === undefined || this.current?.transport === "tcp") return;
    this.waited = { vnc: 0, tcp: 0 };
    this.unplan();
    void this.climb();
  }

  /** doubt has the screen find out soon whether the server is still there. */
  doubt(): void {
    this.doubtedAt = performance.now();
    this.current?.doubt();
  }

  private async climb(): Promise<void> {
    this.climbTimer = undefined;
    let offered: Offered | "unknown";
    try {
      offered = await this.o.offered(this.abort.signal);
    } catch {
      offered = "unknown";
    }
    if (this.stopped) return;
    if (offered === "yes") {
      this.attempt("udp");
      this.headStart = setTimeout(() => this.second(), HEAD_START_MS);
      return;
    }
    this.reason = offered === "unknown" ? this.reason || "unreached" : offered;
    this.barred = offered !== "unknown";
    this.fall();
    this.climbLater();
  }

  private climbLater(): void {
    const on = this.current?.transport ?? "vnc";
    if (this.barred || this.stopped || on === "udp" || this.tries.size > 0 || this.climbTimer !== undefined) return;
    const waits = WAITS[on];
    this.climbTimer = setTimeout(() => void this.climb(), waits[Math.min(this.waited[on]++, waits.length - 1)]);
  }

  // The next climb was planned for another transport.
  private unplan(): void {
    clearTimeout(this.climbTimer);
    this.climbTimer = undefined;
  }

  // UDP has not brought a picture in its head start.
  private second(): void {
    clearTimeout(this.headStart);
    this.headStart = undefined;
    if (this.stopped || this.barred) return;
    const udp = this.tries.get("udp");
    if (!udp?.reached && this.rank() < RANK.tcp) this.attempt("tcp");
    if (!this.current) this.openVnc();
  }

  private attempt(kind: "udp" | "tcp"): void {
    if (this.tries.has(kind) || this.rank() >= RANK[kind]) return;
    const t: Try = { screen: undefined as unknown as Screen, ready: false, reached: false, limit: setTimeout(() => this.failed(t, kind, "unreached"), TRY_MS) };
    this.tries.set(kind, t);
    t.screen = this.o.video(kind, {
      reached: () => (t.reached = true),
      ready: () => {
        t.ready = true;
        clearTimeout(t.limit); // the hands may take their time to be still
        this.settle();
      },
      ended: (why) => (this.current === t.screen ? this.lost(why) : this.failed(t, kind, why)),
    });
  }

  private failed(t: Try, kind: "udp" | "tcp", why: Ended): void {
    if (this.tries.get(kind) !== t) return;
    this.drop(kind);
    if (kind === "udp" && this.headStart !== undefined) this.second();
    if (this.tries.size === 0 && this.headStart === undefined) {
      if (!this.current || this.current.transport === "vnc") this.reason = this.reason === "stalled" || why === "closing" ? this.reason : why;
      if (!this.current) this.fall();
      this.climbLater();
      this.report();
    }
  }

  private drop(kind: "udp" | "tcp"): void {
    const t = this.tries.get(kind);
    if (!t) return;
    clearTimeout(t.limit);
    this.tries.delete(kind);
    void t.screen.leave();
  }

  // From now on whatever is ready first is shown.
  private fall(): void {
    clearTimeout(this.fallTimer);
    this.falling = true;
    if (!this.current) {
      if (this.reason === "") this.reason = "unreached";
      this.openVnc();
      this.settle();
    }
    this.report();
  }

  private openVnc(): void {
    if (this.vnc) return;
    let screen: Screen | null = null;
    let ready = false;
    const mine = (): boolean => this.vnc === screen;
    this.vncPhase = { phase: "connecting", failures: 0, why: "" };
    screen = this.o.vnc({
      reached: () => undefined,
      ready: () => {
        ready = true;
        if (!mine()) return;
        this.vncReady = true;
        if (this.current === screen) this.hand();
        else this.settle();
      },
      lost: () => {
        if (!mine()) return;
        this.vncReady = false;
        if (this.current === screen) this.o.typist.hold();
      },
      phase: (p) => {
        if (screen && !mine()) return;
        this.vncPhase = p;
        this.report();
      },
      ended: () => undefined,
    });
    this.vnc = screen;
    this.vncReady = ready;
  }

  private rank(): number {
    return this.current ? RANK[this.current.transport] : -1;
  }

  // Shows the best screen that is ready, if that is better than the current.
  private settle(): void {
    clearTimeout(this.calmTimer);
    if (this.stopped) return;
    const best = (["udp", "tcp"] as const).map((k) => this.tries.get(k)).find((t) => t?.ready && RANK[t.screen.transport] > this.rank());
    if (best && (!this.current || (this.o.calm() && this.current.settled()))) return this.adopt(best.screen);
    if (best) this.calmTimer = setTimeout(() => this.settle(), ASK_AGAIN_MS);
    else if (!this.current && this.vnc && this.vncReady && this.falling) this.adopt(this.vnc);
  }

  private adopt(screen: Screen): void {
    const old = this.current;
    this.current = screen;
    this.falling = false;
    this.everShown = true;
    clearTimeout(this.fallTimer);
    this.o.typist.hold();
    if (old) this.carry(old);
    if (screen.transport !== "vnc") {
      const won = this.tries.get(screen.transport);
      clearTimeout(won?.limit);
      this.tries.delete(screen.transport);
      clearTimeout(this.headStart);
      this.headStart = undefined;
      this.unplan();
      // What ranks lower is not needed, what ranks higher is tried again later.
      for (const kind of [...this.tries.keys()]) this.drop(kind);
      if (this.vnc && this.vnc !== old) void this.vnc.leave();
      this.vnc = null;
      this.vncReady = false;
      this.reason = screen.transport === "tcp" ? "unreached" : "";
      this.stableTimer = setTimeout(() => (this.waited = { vnc: 0, tcp: 0 }), STABLE_MS);
    }
    screen.show();
    this.o.onScreen(screen);
    this.hand();
    this.climbLater();
    this.report();
  }

  private lost(why: Ended): void {
    const old = this.current;
    if (!old) return;
    clearTimeout(this.stableTimer);
    this.unplan();
    this.current = null;
    this.o.typist.hold();
    this.carry(old);
    this.falling = true;
    this.reason = why === "closing" || why === "unreached" ? "broken" : why;
    // Another window of the person's took over: coming back would throw out that
    // one, which would do the same.
    this.barred ||= why === "replaced";
    this.openVnc();
    // A server that went away says nothing of the ways to it.
    if (!this.barred && performance.now() - this.doubtedAt < DOUBT_MS) void this.climb();
    else if (old.transport === "udp" && (why === "stalled" || why === "broken")) this.attempt("tcp");
    else this.climbLater();
    this.settle();
    this.report();
  }

  // What was typed on a screen that is left goes on to the next.
  private carry(old: Screen): void {
    old.release();
    const before = this.left;
    const more = old.leave();
    this.left = Promise.all([before, more]).then(([a, b]) => [...a, ...b]);
  }

  private hand(): void {
    const to = this.current;
    const left = this.left;
    void left.then((typed) => {
      if (this.stopped || this.current !== to || this.left !== left || !to) return;
      if (to === this.vnc && !this.vncReady) return;
      this.left = Promise.resolve([]);
      this.o.typist.open(to, typed);
    });
  }

  private report(): void {
    if (this.stopped) return;
    const { current, reason } = this;
    const base = { transport: current?.transport ?? null, reason };
    if (current && current.transport !== "vnc") return this.o.onState({ ...base, phase: "live", failures: 0, why: "" });
    if (current || (this.falling && this.vnc && !this.everShown)) return this.o.onState({ ...base, ...this.vncPhase });
    if (this.everShown) return this.o.onState({ ...base, ...this.vncPhase, phase: "reconnecting" });
    this.o.onState({ ...base, phase: "connecting", failures: 0, why: "" });
  }
}
