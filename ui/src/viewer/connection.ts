import { videoOffer } from "../api/webrtc";
import { clip, KEY_ALT, KEY_CONTROL, KEY_META } from "../lib/text";
import type { LadderState, Offered } from "./choice";
import { cursorStyle } from "./cursor";
import { Keyboard } from "./keyboard";
import { charOf } from "./keysym";
import { Ladder } from "./ladder";
import { VideoScreen } from "./rtc";
import type { Figures, Screen, ScreenEvents } from "./screen";
import { Still } from "./still";
import { Story } from "./story";
import { Typist } from "./typist";
import { VncScreen } from "./vnc";
import type { Role } from "./wire";

export interface ViewerState extends LadderState {
  /** Who may use the screen; null before it is known. */
  role: Role | null;
}

interface Options {
  session: string;
  /** Where the picture goes; emptied by stop only as far as it was filled. */
  stage: HTMLElement;
  onState: (s: ViewerState) => void;
  /** The remote clipboard changed; the text is within the limit. */
  onClipboard: (c: { text: string; cut: boolean }) => void;
}

// A switch may not come between two keys of a word.
const CALM_MS = 500;

/** ViewerConnection keeps one session's screen on the stage, on the best
 * transport there is, until stop. The keyboard's box, what was typed, and the
 * last picture outlive every switch. */
export class ViewerConnection {
  private readonly still = new Still();
  private readonly typist = new Typist();
  private readonly story = new Story();
  private readonly keyboard = new Keyboard(this.typist);
  private readonly ladder: Ladder;
  private readonly roles = new WeakMap<Screen, Role>();
  private readonly cursors = new WeakMap<Screen, string>();
  private readonly pressed = new Set<number>();
  private readonly stopping = new AbortController();
  private readonly name = crypto.getRandomValues(new Uint32Array(4)).join("-");
  private iceServers: RTCIceServer[] = [];
  private state: LadderState = { phase: "connecting", failures: 0, why: "", transport: null, reason: "" };
  private controlled = false;
  private focusedOnce = false;

  constructor(private readonly o: Options) {
    o.stage.append(this.still.el, this.keyboard.box);
    const signal = this.stopping.signal;
    // A press focuses the box, and nothing else that the browser would choose.
    o.stage.addEventListener("mousedown", (e) => this.onPress(e), { signal, capture: true });
    o.stage.addEventListener("pointerdown", (e) => this.onPress(e), { signal, capture: true });
    for (const type of ["pointerup", "pointercancel"] as const) {
      addEventListener(type, (e) => this.pressed.delete(e.pointerId), { signal, capture: true });
    }
    this.ladder = new Ladder({
      offered: (s) => this.offered(s),
      video: (transport, life) => {
        const s: Screen = new VideoScreen(
          { session: o.session, window: this.name, transport, iceServers: this.iceServers, stage: o.stage, still: this.still },
          { ...life, ...this.says(() => s) },
        );
        return s;
      },
      vnc: (life) => {
        const s: Screen = new VncScreen({ session: o.session, stage: o.stage, still: this.still }, { ...life, ...this.says(() => s) });
        return s;
      },
      typist: this.typist,
      calm: () => !this.typist.busy && this.pressed.size === 0 && performance.now() - this.typist.lastAt > CALM_MS,
      onState: (s) => {
        const came = s.phase === "live" && this.state.phase !== "live";
        this.state = s;
        this.story.on(s);
        const tell = this.ladder?.screen?.tell;
        if (tell) for (const stats of this.story.take()) tell(stats);
        this.report();
        // Later only a focus that got lost is taken.
        if (came && (this.focusedOnce ? document.activeElement === document.body : !isTyping())) this.keyboard.focus();
        this.focusedOnce ||= came;
      },
      onScreen: (s) => this.onScreen(s),
    });
    this.ladder.start();
  }

  /** stop ends the connection for good; the last picture stays until the stage
   * is removed. */
  stop(): void {
    if (this.stopping.signal.aborted) return;
    this.stopping.abort();
    this.keyboard.stop();
    this.ladder.stop();
  }

  /** retryNow tries at once instead of waiting, and looks whether what there is
   * is alive. */
  readonly retryNow = (): void => this.ladder.nudge();

  /** doubt is to be called when another connection to the server broke. */
  doubt(): void {
    this.ladder.doubt();
  }

  /** keys presses and releases keys, given as keysyms; characters go as text. */
  keys(keysyms: readonly number[]): void {
    let text = "";
    for (const k of keysyms) {
      const c = charOf(k);
      text += c;
      if (c !== "") continue;
      this.typist.text(text);
      text = "";
      this.typist.tap(k);
    }
    this.typist.text(text);
  }

  /** offer puts text on the remote clipboard. */
  offer(text: string): void {
    this.typist.clipboard(clip(text).text);
  }

  /** paste puts text on the remote clipboard and presses Ctrl+V there. An
   * empty text pastes what the remote clipboard has. */
  paste(text: string): void {
    const t = this.typist;
    if (text) this.offer(text);
    for (const k of [KEY_ALT, KEY_META]) if (t.isDown(k)) t.key(k, false);
    const held = t.isDown(KEY_CONTROL);
    if (!held) t.key(KEY_CONTROL, true);
    t.tap("v".charCodeAt(0));
    if (!held) t.key(KEY_CONTROL, false);
  }

  takeControl(): void {
    this.ladder.screen?.takeControl();
    this.keyboard.focus();
  }

  figures(): Promise<Figures | null> {
    return this.ladder.screen?.figures() ?? Promise.resolve(null);
  }

  private async offered(signal: AbortSignal): Promise<Offered> {
    if (typeof RTCPeerConnection === "undefined") return "unsupported";
    const offer = await videoOffer(this.o.session, signal);
    this.iceServers = offer.ice_servers;
    return offer.enabled ? "yes" : "off";
  }

  private says(of: () => Screen): Omit<ScreenEvents, "reached" | "ready" | "ended"> {
    return {
      clipboard: (text) => {
        if (of() !== this.ladder.screen) return;
        this.typist.copied(text);
        this.o.onClipboard(clip(text));
      },
      role: (role) => {
        this.roles.set(of(), role);
        if (of() === this.ladder.screen) this.onRole(of());
      },
      cursor: (picture) => {
        this.cursors.set(of(), cursorStyle(picture));
        if (of() === this.ladder.screen) this.o.stage.style.cursor = this.cursors.get(of()) ?? "";
      },
    };
  }

  private onScreen(s: Screen): void {
    this.o.stage.style.cursor = this.cursors.get(s) ?? "";
    // Who was in control before a break is so after it.
    if (this.controlled && this.roles.get(s) === "watch") s.takeControl();
    else this.onRole(s);
  }

  private onRole(s: Screen): void {
    this.controlled = s.transport === "vnc" ? this.controlled : this.roles.get(s) === "control";
    this.report();
  }

  private report(): void {
    const s = this.ladder?.screen;
    this.o.onState({ ...this.state, role: s ? (s.transport === "vnc" ? "control" : (this.roles.get(s) ?? null)) : null });
  }

  private onPress(e: MouseEvent): void {
    if (e instanceof PointerEvent && e.type === "pointerdown") {
      this.pressed.add(e.pointerId);
      this.o.stage.dataset["focus"] = "pointer";
      const { left, top } = this.o.stage.getBoundingClientRect();
      this.keyboard.place(e.clientX - left, e.clientY - top);
    } else e.preventDefault();
    this.keyboard.focus();
  }
}

function isTyping(): boolean {
  const a = document.activeElement;
  return a !== null && !a.matches(".stage-keys") && (a.matches("input, textarea, select") || a.closest("dialog") !== null);
}
