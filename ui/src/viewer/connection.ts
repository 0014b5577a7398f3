import { viewerSocketURL, viewerTicket } from "../api/client";
import { ApiError, sentence } from "../api/errors";
import { openWithTicket, SocketClosed } from "../api/socket";
import type { Ticket } from "../api/types";
import { Backoff } from "../lib/backoff";
import { clip, KEY_ALT, KEY_CONTROL, KEY_META } from "../lib/text";
import { hasPicture } from "./picture";
import type { ViewerRFB } from "./rfb";

export interface ViewerState {
  phase: "connecting" | "live" | "reconnecting" | "stopped";
  /** Tries that failed in a row. */
  failures: number;
  /** Why the last one failed, for the person. */
  why: string;
}

interface Options {
  session: string;
  /** Where the picture goes; emptied by stop only as far as it was filled. */
  stage: HTMLElement;
  onState: (s: ViewerState) => void;
  /** The remote clipboard changed; the text is within the limit. */
  onClipboard: (c: { text: string; cut: boolean }) => void;
}

// From the open socket to the first bytes of a screen.
const HANDSHAKE_MS = 10_000;
// A connection that lasts this long starts the waits anew when it breaks; one
// that breaks at once must not be tried again without a pause.
const STABLE_MS = 3_000;

const LATE = "The browser machine's screen did not answer in time.";
const BROKE = "The connection to the browser machine's screen broke.";

/** ViewerConnection keeps one session's screen on the stage: it connects with a
 * new ticket each time, again and again until stop, and leaves the last
 * picture standing in between. */
export class ViewerConnection {
  private readonly backoff = new Backoff();
  private readonly live = document.createElement("div");
  private readonly still = document.createElement("div");
  private rfb: ViewerRFB | null = null;
  private abort = new AbortController();
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private stableTimer: ReturnType<typeof setTimeout> | undefined;
  private connectedOnce = false;
  private painted = false;
  private stopped = false;
  private why = "";

  constructor(private readonly o: Options) {
    this.live.className = "stage-live";
    this.still.className = "stage-still";
    this.still.setAttribute("aria-hidden", "true");
    o.stage.append(this.live, this.still);
    addEventListener("online", this.onOnline);
    void this.connect();
  }

  /** stop ends the connection for good; the last picture stays until the stage
   * is removed. */
  stop(): void {
    if (this.stopped) return;
    this.stopped = true;
    removeEventListener("online", this.onOnline);
    this.endCurrent();
    this.report("stopped", "");
  }

  /** retryNow tries at once instead of waiting; without effect when live. */
  readonly retryNow = (): void => {
    if (this.stopped || this.retryTimer === undefined) return;
    clearTimeout(this.retryTimer);
    this.retryTimer = undefined;
    void this.connect();
  };

  /** keys presses and releases keys, given as keysyms. */
  keys(keysyms: readonly number[]): void {
    for (const k of keysyms) this.rfb?.sendKey(k, null);
  }

  /** offer puts text on the remote clipboard. */
  offer(text: string): void {
    this.rfb?.clipboardPasteFrom(clip(text).text);
  }

  /** paste puts text on the remote clipboard and presses Ctrl+V there. An
   * empty text pastes what the remote clipboard has. */
  paste(text: string): void {
    const rfb = this.rfb;
    if (!rfb) return;
    if (text) this.offer(text);
    // Command+V on a Mac has pressed other keys over there.
    for (const k of [KEY_ALT, KEY_META]) rfb.sendKey(k, null, false);
    rfb.sendKey(KEY_CONTROL, "ControlLeft", true);
    rfb.sendKey("v".charCodeAt(0), "KeyV");
    rfb.sendKey(KEY_CONTROL, "ControlLeft", false);
  }

  focus(): void {
    this.rfb?.focus({ preventScroll: true });
  }

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
    rfb.resizeSession = true;
    rfb.background = "transparent";
    let late = false;
    const canvas = this.live.querySelector("canvas");
    canvas?.setAttribute("aria-label", "The browser machine's screen");
    canvas?.setAttribute("role", "application");
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
      if (!isTyping()) this.focus();
    });
    rfb.addEventListener("disconnect", () => {
      clearTimeout(handshake);
      if (this.rfb !== rfb) return;
      this.keepPicture(canvas);
      this.rfb = null;
      this.failed(late ? LATE : closedBecause() || BROKE);
    });
    rfb.addEventListener("credentialsrequired", () => rfb.disconnect());
    rfb.addEventListener("clipboard", (e) => this.o.onClipboard(clip(e.detail.text)));
  }

  private async showOncePainted(canvas: HTMLCanvasElement): Promise<void> {
    if (!(await hasPicture(canvas, this.abort.signal))) return;
    this.painted = true;
    this.still.replaceChildren();
  }

  // A device that was offline may hold a socket that is dead without knowing.
  private readonly onOnline = (): void => void this.connect();

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
    if (!rfb) return;
    const canvas = this.live.querySelector("canvas");
    rfb.disconnect();
    this.keepPicture(canvas);
  }

  // The canvas that noVNC gives up still holds the last picture: it stands in
  // front of the next connection until that one has painted.
  private keepPicture(canvas: HTMLCanvasElement | null): void {
    if (!canvas || !this.painted) return;
    this.painted = false;
    for (const p of ["width", "height", "margin", "cursor"]) canvas.style.removeProperty(p);
    canvas.removeAttribute("tabindex");
    this.still.replaceChildren(canvas);
  }

  private report(phase: ViewerState["phase"], why: string): void {
    this.why = why;
    this.o.onState({ phase, failures: this.backoff.count, why });
  }
}

function whyOf(err: unknown): string {
  if (err instanceof SocketClosed || err instanceof ApiError) return err.message;
  return sentence(err);
}

function isTyping(): boolean {
  const a = document.activeElement;
  return a !== null && (a.matches("input, textarea, select") || a.closest("dialog") !== null);
}
