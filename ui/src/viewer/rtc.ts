import { ApiError } from "../api/errors";
import { endVideo } from "../api/webrtc";
import { Journal } from "./journal";
import { figuresOf, look, Pixels, Pulse, type Look } from "./measure";
import { negotiate, Restarts } from "./negotiate";
import { place, Pointer } from "./pointer";
import type { Ended, Figures, Screen, ScreenEvents, Typed } from "./screen";
import { remoteSize } from "./size";
import type { Still } from "./still";
import type { Stats } from "./story";
import { isModifier } from "./typist";
import { decode, encode, pieces, type Closing, type Input, type Point, type Role, type Said } from "./wire";

export interface VideoOptions {
  session: string;
  window: string; // the name that all connections of this window have
  transport: "udp" | "tcp";
  iceServers: RTCIceServer[];
  stage: HTMLElement;
  still: Still;
}

const LOOK_MS = 250;
const RESIZE_MS = 150;
const LEAVE_MS = 700; // for the server to say what it has handed on

/** What a message says before its number is known; Omit would merge the kinds. */
type Unnumbered = Input extends infer I ? (I extends { id: number } ? Omit<I, "id"> : never) : never;

/** VideoScreen is the display over WebRTC: video one way, input the other, by one
 * of the server's protocols only, so that what is tried next is known. */
export class VideoScreen implements Screen {
  readonly transport: "udp" | "tcp";
  readonly video = document.createElement("video");
  private readonly frame = document.createElement("div");
  private readonly pc: RTCPeerConnection;
  private readonly input: RTCDataChannel;
  private readonly moves: RTCDataChannel;
  private readonly journal = new Journal();
  private readonly pixels = new Pixels();
  private readonly pulse = new Pulse();
  private readonly pointer: Pointer;
  private readonly sizes: ResizeObserver;
  private readonly began = performance.now();
  private readonly location: Promise<string>;
  private id = 0;
  private role: Role | null = null;
  private size: { width: number; height: number } | null = null;
  private shown = false;
  private picture = false;
  private over = false;
  private left: Promise<Typed[]> | null = null;
  private asked = "";
  private watch: ReturnType<typeof setInterval> | undefined;
  private readonly restarts: Restarts;
  private resizing: ReturnType<typeof setTimeout> | undefined;
  private before: Look | null = null;

  constructor(
    private readonly o: VideoOptions,
    private readonly events: ScreenEvents,
  ) {
    this.transport = o.transport;
    const v = this.video;
    v.muted = v.autoplay = v.playsInline = true;
    v.disablePictureInPicture = true;
    v.setAttribute("aria-label", "The browser machine's screen");
    this.frame.className = "stage-next";
    this.frame.append(v);
    o.stage.prepend(this.frame);
    v.addEventListener("loadeddata", () => this.firstPicture());
    if ("requestVideoFrameCallback" in v) v.requestVideoFrameCallback(this.onPicture);
    this.pointer = new Pointer(this.frame, (x, y) => place(x, y, this.frame.getBoundingClientRect(), this.screen()), {
      move: (at) => this.move(at),
      button: (button, down, at) => void this.ordered({ type: "button", button, down, ...at }),
      wheel: (dx, dy, at) => void this.ordered({ type: "wheel", dx, dy, ...at }),
    });
    this.sizes = new ResizeObserver(() => this.resizeSoon());

    this.pc = new RTCPeerConnection({ iceServers: o.iceServers, bundlePolicy: "max-bundle" });
    this.input = this.pc.createDataChannel("input");
    this.moves = this.pc.createDataChannel("moves", { ordered: false, maxRetransmits: 0 });
    this.input.binaryType = "arraybuffer";
    this.input.onmessage = (e: MessageEvent<ArrayBuffer | string>) => this.said(decode(e.data));
    this.input.onopen = () => this.readyIfSo();
    this.input.onclose = () => this.end("broken");
    this.pc.ontrack = (e) => this.onTrack(e);
    this.pc.onconnectionstatechange = () => this.onState();
    this.pc.oniceconnectionstatechange = () => this.onIce();
    addEventListener("pagehide", this.onPageHide);
    this.location = negotiate(this.pc, o.session, o.window, o.transport);
    this.restarts = new Restarts(this.pc, this.location, o.transport);
    this.location.catch((err: unknown) => this.end(err instanceof ApiError && err.temporary ? "unreached" : "refused"));
  }

  show(): void {
    this.shown = true;
    this.frame.className = "stage-live";
    this.o.still.clear();
    this.sizes.observe(this.frame);
    this.resizeSoon();
  }

  key(keysym: number, down: boolean, modifiers: readonly number[]): void {
    const id = this.ordered({ type: "key", keysym, down });
    if (id !== 0 && down && !isModifier(keysym)) this.journal.add(id, { key: keysym, modifiers }, performance.now());
  }

  text(text: string): void {
    for (const piece of pieces(text)) {
      const id = this.ordered({ type: "text", text: piece });
      if (id !== 0) this.journal.add(id, { text: piece }, performance.now());
    }
  }

  clipboard(text: string): void {
    if (this.role === "watch" || !this.open) return;
    // It has no number of its own: whatever comes after it confirms it.
    this.journal.add(this.id + 1, { clipboard: text }, performance.now());
    this.input.send(encode({ type: "clipboard", text }));
  }

  release(): void {
    if (this.open) this.input.send(encode({ type: "release" }));
  }

  readonly settled = (): boolean => this.journal.empty;

  takeControl(): void {
    this.say({ control: true });
    if (this.open) this.role = null; // what is done from here on comes after it
  }

  nudge(): void {
    void this.lookNow();
  }

  readonly tell = (stats: Stats): void => this.say({ stats });

  doubt(): void {
    this.pulse.doubt();
    void this.lookNow();
  }

  async figures(): Promise<Figures | null> {
    if (this.over) return null;
    const now = look(await this.pc.getStats(), performance.now());
    const rates = figuresOf(this.before ?? now, now);
    this.before = now;
    return { ...rates, inputToPixelMs: this.pixels.ms, ...this.screen() };
  }

  leave(): Promise<Typed[]> {
    this.left ??= this.close();
    return this.left;
  }

  private async close(): Promise<Typed[]> {
    this.over = true;
    removeEventListener("pagehide", this.onPageHide);
    this.restarts.stop();
    clearInterval(this.watch);
    clearTimeout(this.resizing);
    this.sizes.disconnect();
    this.pointer.stop();
    this.input.onclose = this.input.onmessage = null;
    this.pc.onconnectionstatechange = this.pc.oniceconnectionstatechange = null;
    if (this.shown) this.o.still.copy(this.video);
    // Nothing that is still on its way may be sent again from here on.
    this.pc.close();
    this.frame.remove();
    this.video.srcObject = null;
    const end = this.location.then(endVideo).catch(() => null);
    const applied = await Promise.race([end, new Promise<null>((r) => setTimeout(r, LEAVE_MS, null))]);
    if (applied !== null) this.journal.applied(applied);
    return this.journal.left();
  }

  private get open(): boolean {
    return !this.over && this.input.readyState === "open";
  }

  private screen(): { width: number; height: number } {
    return this.size ?? { width: this.video.videoWidth, height: this.video.videoHeight };
  }

  private onTrack(e: RTCTrackEvent): void {
    const r = e.receiver as RTCRtpReceiver & { jitterBufferTarget?: number | null; playoutDelayHint?: number };
    // Every picture at once: what waits in a buffer is what the person feels.
    if ("jitterBufferTarget" in r) r.jitterBufferTarget = 0;
    if ("playoutDelayHint" in r) r.playoutDelayHint = 0;
    this.video.srcObject = e.streams[0] ?? new MediaStream([e.track]);
    this.video.play().catch(() => undefined);
  }

  private onState(): void {
    const state = this.pc.connectionState;
    if (state === "connected") {
      this.watch ??= setInterval(() => void this.lookNow(), LOOK_MS);
    } else if (state === "failed" || state === "closed") this.end(this.picture ? "broken" : "unreached");
  }

  private onIce(): void {
    if (this.pc.iceConnectionState === "connected") this.events.reached();
    else if (this.pc.iceConnectionState === "disconnected") this.restarts.now();
  }

  private readonly onPicture = (now: number, meta: VideoFrameCallbackMetadata): void => {
    if (this.over) return;
    if (meta.rtpTimestamp !== undefined) this.pixels.shown(meta.rtpTimestamp, Math.max(now, meta.expectedDisplayTime));
    this.firstPicture();
    this.video.requestVideoFrameCallback(this.onPicture);
  };

  private firstPicture(): void {
    if (this.picture || this.over) return;
    this.picture = true;
    this.readyIfSo();
  }

  private readyIfSo(): void {
    if (!this.picture || !this.open) return;
    this.tell({ transport: this.transport, first_frame_ms: Math.round(performance.now() - this.began) });
    this.events.ready();
  }

  private async lookNow(): Promise<void> {
    // A browser hardly runs a page that nobody sees: its looks mean nothing.
    if (this.over || document.hidden) return this.pulse.rest();
    const l = look(await this.pc.getStats(), performance.now());
    if (this.over) return;
    this.before ??= l;
    const state = this.pulse.take(l);
    this.journal.heard(this.pulse.heardAt);
    if (state === "stalled" && this.picture) this.end("stalled");
    // Any message is answered by the channel itself.
    else if (state === "quiet") this.tell({});
  }

  private said(s: Said): void {
    if (this.over) return;
    if (s.role) {
      this.role = s.role;
      this.resizeSoon();
      this.events.role(s.role);
    }
    if (s.size) this.size = s.size;
    if (s.cursor !== undefined) this.events.cursor(s.cursor);
    if (s.clipboard !== undefined) this.events.clipboard(s.clipboard);
    if (s.frame) {
      this.journal.applied(s.frame.input);
      this.pixels.frame(s.frame.rtp, s.frame.input);
    }
    if (s.closing) this.end(CLOSING[s.closing]);
  }

  // The number of what was sent, or 0.
  private ordered(what: Unnumbered): number {
    return this.put(this.input, what);
  }

  private move(at: Point): void {
    // See Journal for why a move keeps its place behind a key.
    this.put(this.journal.empty && this.moves.readyState === "open" ? this.moves : this.input, { type: "move", ...at });
  }

  private put(channel: RTCDataChannel, what: Unnumbered): number {
    if (this.role === "watch" || !this.open) return 0;
    const id = ++this.id;
    channel.send(encode({ ...what, id }));
    this.pixels.input(id, performance.now());
    return id;
  }

  private say(words: object): void {
    if (this.open) this.input.send(JSON.stringify(words));
  }

  private resizeSoon(): void {
    clearTimeout(this.resizing);
    this.resizing = setTimeout(() => {
      const { width, height } = this.frame.getBoundingClientRect();
      const { w, h } = remoteSize({ w: width, h: height });
      const words = JSON.stringify({ resize: { width: w, height: h } });
      if (!this.shown || !this.open || w === 0 || words === this.asked || this.role === "watch") return;
      this.asked = words;
      this.input.send(words);
    }, RESIZE_MS);
  }

  private readonly onPageHide = (): void => this.end("broken");
  private end(why: Ended): void {
    if (this.over) return;
    this.over = true;
    this.events.ended(why);
    void this.leave();
  }
}

const CLOSING: Record<Closing, Ended> = { ended: "closing", signed_out: "closing", stopping: "closing", replaced: "replaced" };
