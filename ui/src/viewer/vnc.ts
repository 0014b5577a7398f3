import { viewerSocketURL, viewerTicket } from "../api/client";
import { ApiError, sentence } from "../api/errors";
import { openWithTicket, SocketClosed } from "../api/socket";
import type { Ticket } from "../api/types";
import { Backoff } from "../lib/backoff";
import { clip, keysymsOf } from "../lib/text";
import { hasPicture } from "./picture";
import type { ViewerRFB } from "./rfb";
import type { Figures, Screen, ScreenEvents, Typed, VncLife, VncPhase } from "./screen";
import type { Still } from "./still";
import { isModifier } from "./typist";

interface Options {
  session: string;
  /** Where the picture goes. */
  stage: HTMLElement;
  still: Still;
}

// From the open socket to the first bytes of a screen.
const HANDSHAKE_MS = 10_000;
// A connection that lasts this long starts the waits anew when it breaks; one
// that breaks at once must not be tried again without a pause.
const STABLE_MS = 3_000;

const LATE = "The browser machine's screen did not answer in time.";
const BROKE = "The connection to the browser machine's screen broke.";

/** VncScreen is the display over noVNC: it connects with a new ticket each time,
 * again and again until leave, and leaves the last picture standing in between.
 * noVNC reads the pointer by itself, the keys come from the one Keyboard. */
export class VncScreen implements Screen {
  readonly transport = "vnc";
  private readonly backoff = new Backoff();
  private readonly live = document.createElement("div");
  private rfb: ViewerRFB | null = null;
  private abort = new AbortController();
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private stableTimer: ReturnType<typeof setTimeout> | undefined;
  private connectedOnce = false;
  private painted = false;
  private shown = false;
  private stopped = false;
  private why = "";
  private readonly pressed = new Set<number>();

  constructor(
    private readonly o: Options,
    private readonly events: ScreenEvents & VncLife,
  ) {
    this.live.className = "stage-next";
    o.stage.prepend(this.live);
    addEventListener("online", this.onOnline);
    void this.connect();
  }

  show(): void {
    this.shown = true;
    this.live.className = "stage-live";
    if (this.rfb) this.rfb.resizeSession = true;
    if (this.painted) this.o.still.clear();
  }

  key(keysym: number, down: boolean): void {
    // A key that goes down twice is repeated. The X server makes nothing of that
    // while another viewer types over video: its own repeating is off then.
    if (down && this.pressed.has(keysym) && !isModifier(keysym)) this.rfb?.sendKey(keysym, null, false);
    if (down) this.pressed.add(keysym);
    else this.pressed.delete(keysym);
    this.rfb?.sendKey(keysym, null, down);
  }

  text(text: string): void {
    for (const k of keysymsOf(text)) this.rfb?.sendKey(k, null);
  }

  clipboard(text: string): void {
    this.rfb?.clipboardPasteFrom(clip(text).text);
  }

  release(): void {
    for (const k of [...this.pressed]) this.key(k, false);
  }

  settled(): boolean {
    return true;
  }

  takeControl(): void {
    // Everybody who sees it may use it.
  }

  /** nudge tries at once instead of waiting; without effect when live. */
  nudge(): void {
    this.retryNow();
  }

  doubt(): void {
    // Its socket breaks with the server.
  }

  figures(): Promise<Figures | null> {
    const c = this.live.querySelector("canvas");
    if (!c || !this.painted) return Promise.resolve(null);
    const unknown = { roundTripMs: null, framesPerSecond: null, bitsPerSecond: null, inputToPixelMs: null };
    return Promise.resolve({ ...unknown, width: c.width, height: c.height });
  }

  leave(): Promise<Typed[]> {
    if (!this.stopped) {
      this.stopped = true;
      removeEventListener("online", this.onOnline);
      this.release();
      this.endCurrent();
      this.live.remove();
    }
    return Promise.resolve([]);
  }

  private readonly retryNow = (): void => {
    if (this.stopped || this.retryTimer === undefined) return;
    clearTimeout(this.retryTimer);
    this.retryTimer = undefined;
    void this.connect();
  };

  private async connect(): Promise<void> {
    this.endCurrent();
    const abort = new AbortController();
    this.abort = abort;
    // Still for the last reason: the words must not come and go with each try.
    this.report(this.connectedOnce ? "reconnecting" : "connecting", this.why);
    try {
      // Both before the socket opens: its first message must find noVNC there.
      const ticket = async (s: AbortSignal): Promise<Ticket> => (await Promise.all([viewerTicket(this.o.session, s), module]))[0];
      const module = import("./rfb");
      const ws = await openWithTicket(ticket, viewerSocketURL(this.o.session), abort.signal);
      const { ViewerRFB } = await module;
      if (abort.signal.aborted) {
        ws.close();
        return;
      }
      let why = "";
      // Before noVNC's own listener, which gives up the connection.
      ws.addEventListener("close", (e) => (why = new SocketClosed(e.code, e.reason).message));
      this.attach(new ViewerRFB(this.live, ws, { shared: true }), () => why);
    } catch (err) {
      if (!abort.signal.aborted) this.failed(whyOf(err));
    }
  }

  private attach(rfb: ViewerRFB, closedBecause: () => string): void {
    this.rfb = rfb;
    this.painted = false;
    rfb.scaleViewport = true;
    // A screen that is only held ready must not change the other's size.
    rfb.resizeSession = this.shown;
    // The focus stays with the keyboard's box.
    rfb.focusOnClick = false;
    rfb.background = "transparent";
    let late = false;
    const canvas = this.live.querySelector("canvas");
    canvas?.setAttribute("aria-label", "The browser machine's screen");
    canvas?.setAttribute("role", "application");
    canvas?.removeAttribute("tabindex");
    const handshake = setTimeout(() => {
      late = true;
      rfb.disconnect();
    }, HANDSHAKE_MS);

    rfb.addEventListener("connect", () => {
      clearTimeout(handshake);
      if (this.rfb !== rfb) return;
      this.connectedOnce = true;
      this.stableTimer = setTimeout(() => this.backoff.reset(), STABLE_MS);
      this.report("live", "");
      if (canvas) void this.showOncePainted(canvas);
      this.events.ready();
    });
    rfb.addEventListener("disconnect", () => {
      clearTimeout(handshake);
      if (this.rfb !== rfb) return;
      this.keepPicture(canvas);
      this.rfb = null;
      this.failed(late ? LATE : closedBecause() || BROKE);
      if (!this.stopped) this.events.lost();
    });
    rfb.addEventListener("credentialsrequired", () => rfb.disconnect());
    rfb.addEventListener("clipboard", (e) => this.events.clipboard(e.detail.text));
  }

  private async showOncePainted(canvas: HTMLCanvasElement): Promise<void> {
    if (!(await hasPicture(canvas, this.abort.signal))) return;
    this.painted = true;
    if (this.shown) this.o.still.clear();
  }

  // A device that was offline may hold a socket that is dead without knowing.
  private readonly onOnline = (): void => {
    const had = this.rfb !== null;
    void this.connect();
    if (had) this.events.lost();
  };

  private failed(why: string): void {
    clearTimeout(this.stableTimer);
    if (this.stopped) return;
    const wait = this.backoff.next();
    this.report("reconnecting", why);
    this.retryTimer = setTimeout(this.retryNow, wait);
  }

  private endCurrent(): void {
    clearTimeout(this.retryTimer);
    clearTimeout(this.stableTimer);
    this.retryTimer = undefined;
    const rfb = this.rfb;
    this.abort.abort();
    this.rfb = null;
    this.pressed.clear();
    if (!rfb) return;
    const canvas = this.live.querySelector("canvas");
    rfb.disconnect();
    this.keepPicture(canvas);
  }

  // The canvas that noVNC gives up still holds the last picture: it stands in
  // front of the next connection until that one has painted.
  private keepPicture(canvas: HTMLCanvasElement | null): void {
    if (!canvas || !this.painted || !this.shown) return;
    this.painted = false;
    for (const p of ["width", "height", "margin", "cursor"]) canvas.style.removeProperty(p);
    canvas.removeAttribute("tabindex");
    this.o.still.keep(canvas);
  }

  private report(phase: VncPhase["phase"], why: string): void {
    this.why = why;
    if (!this.stopped) this.events.phase({ phase, failures: this.backoff.count, why });
  }
}

function whyOf(err: unknown): string {
  if (err instanceof SocketClosed || err instanceof ApiError) return err.message;
  return sentence(err);
}
