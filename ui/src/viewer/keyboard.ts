import { KEY_BACKSPACE, KEY_ENTER } from "../lib/text";
import { charOf, CONTROL_L, CONTROL_R, keysymFor, modifierOf } from "./keysym";
import { GROUPS, type Typist } from "./typist";

export type System = "mac" | "windows" | "other";

/** system is what the person's device runs, as far as keyboards differ. */
export function system(platform = navigator.platform): System {
  if (/^(mac|iphone|ipad|ipod)/i.test(platform)) return "mac";
  return /^win/i.test(platform) ? "windows" : "other";
}

type Press = Pick<KeyboardEvent, "key" | "code" | "location" | "repeat" | "shiftKey" | "ctrlKey" | "altKey" | "metaKey"> & {
  keyCode?: number;
  isComposing?: boolean;
  getModifierState: (name: string) => boolean;
};

const WORDWISE = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Backspace", "Delete"]);

/** KeyReader turns key events into what is typed. It knows no layout: the
 * character that a key makes is in the event.
 *
 * - AltGr is never passed on, since it only chooses a character; Windows' fake
 *   Control for it is taken back.
 * - On a Mac Command is Control, and Option, which chooses characters, is
 *   Control where it moves or deletes by words.
 * - What an input method or a dead key takes is left to the text box.
 * - Modifiers are brought to what each event says of them: releases get lost
 *   when another window takes the keyboard. */
export class KeyReader {
  /** The keysym by which a key went down, which it has to go up by. */
  private readonly down = new Map<string, number>();

  constructor(
    private readonly typist: Typist,
    private readonly on: System,
  ) {}

  /** press says whether it has taken the key; otherwise it is the text box's. */
  press(e: Press): boolean {
    if (e.isComposing || e.keyCode === 229 || e.key === "Process" || e.key === "Dead") return false;
    if (e.key === "AltGraph") {
      this.let("control", false);
      this.let("alt", false);
      return true;
    }
    const modifier = this.modifier(e);
    if (modifier !== 0) {
      if (!e.repeat && !(e.key === "Control" && e.getModifierState("AltGraph"))) this.set(e.code, modifier);
      return true;
    }
    if (this.on === "mac" && e.key === "Alt") return true;
    const keysym = keysymFor(e);
    if (keysym === 0) return false;
    const borrowed = this.align(e, charOf(keysym) !== "");
    this.set(e.code, e.repeat ? (this.down.get(e.code) ?? keysym) : keysym);
    // A Mac does not tell when a key goes up beside Command, and some soft
    // keyboards do not tell which key it was.
    if (borrowed.length > 0 || e.code === "" || (this.on === "mac" && e.metaKey)) this.unset(e.code);
    for (const k of borrowed) this.typist.key(k, false);
    return true;
  }

  /** release says whether the key was one that press had taken. */
  release(e: Press): boolean {
    const known = this.unset(e.code);
    this.align(e, true, false);
    return known;
  }

  releaseAll(): void {
    this.down.clear();
    this.typist.releaseAll();
  }

  private modifier(e: Press): number {
    const m = modifierOf(e);
    if (this.on !== "mac") return m;
    if (e.key === "Alt") return 0;
    return e.key === "Meta" ? (e.location === 2 ? CONTROL_R : CONTROL_L) : m;
  }

  private set(code: string, keysym: number): void {
    const before = this.down.get(code);
    if (before !== undefined && before !== keysym) this.typist.key(before, false);
    this.down.set(code, keysym);
    this.typist.key(keysym, true);
  }

  private unset(code: string): boolean {
    const keysym = this.down.get(code);
    if (keysym === undefined) return false;
    this.down.delete(code);
    // The other key of the same meaning may still be down.
    if (![...this.down.values()].includes(keysym)) this.typist.key(keysym, false);
    return true;
  }

  // align makes the modifiers over there those of the event, and returns those
  // that it pressed without having seen the person do so. Shift is not pressed
  // for a character: which one it is says its keysym.
  private align(e: Press, isChar: boolean, pressToo = true): number[] {
    const mac = this.on === "mac";
    const chooses = e.getModifierState("AltGraph");
    const wordwise = mac && e.altKey && WORDWISE.has(e.key);
    const want = {
      shift: e.shiftKey,
      control: mac ? e.ctrlKey || e.metaKey || wordwise : e.ctrlKey && !chooses,
      alt: !mac && e.altKey && !chooses,
      meta: !mac && e.metaKey,
    };
    const pressed: number[] = [];
    for (const name of ["shift", "control", "alt", "meta"] as const) {
      if (want[name] && (!pressToo || (name === "shift" && isChar))) continue;
      const k = this.let(name, want[name]);
      if (k !== 0) pressed.push(k);
    }
    return pressed;
  }

  private let(name: keyof typeof GROUPS, down: boolean): number {
    const held = GROUPS[name].filter((k) => this.typist.isDown(k));
    if (down && held.length === 0) {
      this.typist.key(GROUPS[name][0], true);
      return GROUPS[name][0];
    }
    if (!down) for (const k of held) this.typist.key(k, false);
    return 0;
  }
}

/** Keyboard is the text box in front of the screen that has the focus while the
 * person types on it, whatever the transport: it outlives every switch. It is
 * a text box since input methods and dead keys compose in nothing else. */
export class Keyboard {
  readonly box = document.createElement("textarea");
  private readonly reader: KeyReader;
  private composing = false;

  constructor(private readonly typist: Typist) {
    this.reader = new KeyReader(typist, system());
    const b = this.box;
    b.className = "stage-keys";
    b.setAttribute("aria-label", "The browser machine's screen. Shift and Escape leave it.");
    b.setAttribute("autocapitalize", "none");
    b.setAttribute("autocorrect", "off");
    b.autocomplete = "off";
    b.spellcheck = false;
    b.rows = 1;
    b.dataset["testid"] = "viewer-keys";
    // A soft keyboard would cover the screen at every tap; the bar has one.
    if (matchMedia("(pointer: coarse)").matches) b.inputMode = "none";
    b.addEventListener("keydown", this.onDown);
    b.addEventListener("keyup", this.onUp);
    b.addEventListener("compositionstart", this.onCompose);
    b.addEventListener("compositionend", this.onComposed);
    b.addEventListener("beforeinput", this.onBefore);
    b.addEventListener("input", this.onInput);
    b.addEventListener("blur", this.releaseAll);
    document.addEventListener("visibilitychange", this.releaseAll);
  }

  focus(): void {
    this.box.focus({ preventScroll: true });
  }

  get focused(): boolean {
    return document.activeElement === this.box;
  }

  /** place puts the box, in which a composition shows, where the person looks. */
  place(x: number, y: number): void {
    this.box.style.left = `${Math.round(x)}px`;
    this.box.style.top = `${Math.round(y)}px`;
  }

  stop(): void {
    document.removeEventListener("visibilitychange", this.releaseAll);
    this.releaseAll();
    this.box.remove();
  }

  readonly releaseAll = (): void => this.reader.releaseAll();

  private readonly onDown = (e: KeyboardEvent): void => {
    if (this.reader.press(e)) e.preventDefault();
  };

  private readonly onUp = (e: KeyboardEvent): void => {
    if (this.reader.release(e)) e.preventDefault();
  };

  private readonly onCompose = (): void => {
    this.composing = true;
    this.box.dataset["composing"] = "";
  };

  private readonly onComposed = (): void => {
    this.composing = false;
    delete this.box.dataset["composing"];
    this.take();
  };

  private readonly onBefore = (e: InputEvent): void => {
    if (this.composing || e.isComposing) return;
    const key = e.inputType === "deleteContentBackward" ? KEY_BACKSPACE : /^insert(LineBreak|Paragraph)$/.test(e.inputType) ? KEY_ENTER : 0;
    if (key === 0) return;
    e.preventDefault();
    this.typist.tap(key);
  };

  private readonly onInput = (e: Event): void => {
    if (!this.composing && !(e as InputEvent).isComposing) this.take();
  };

  private take(): void {
    const text = this.box.value;
    this.box.value = "";
    this.typist.text(text);
  }
}
