import { ALT_L, CONTROL_L, CONTROL_R, SHIFT_L, SUPER_L } from "./keysym";
import type { Keys, Typed } from "./screen";

/** The modifiers by what they do: left and right. */
export const GROUPS = {
  shift: [SHIFT_L, 0xffe2],
  control: [CONTROL_L, CONTROL_R],
  alt: [ALT_L, 0xffea],
  meta: [SUPER_L, 0xffec],
} as const;

const MODIFIERS: ReadonlySet<number> = new Set(Object.values(GROUPS).flat());

// After so long without any screen, what was typed is given up as a whole, and
// so is what follows: half of a password would be worse than none of it.
const PATIENCE_MS = 10_000;
const MAX_WAITING = 4096;

/** Typist types on whatever screen there is. Between two screens it keeps what
 * is typed, and passes it to the next one in its order. Modifiers that are held
 * meanwhile are pressed there again; other keys that are held are not, since a
 * key must not be typed twice. */
export class Typist {
  private to: Keys | null = null;
  private waiting: Typed[] = [];
  private giveUp: ReturnType<typeof setTimeout> | undefined;
  private patient = true;
  private given: string | null = null;
  private readonly held = new Set<number>();
  /** When something was typed last, by performance.now(). */
  lastAt = -Infinity;

  constructor(private readonly onTyped: () => void = () => undefined) {}

  /** Whether a key is down. */
  get busy(): boolean {
    return this.held.size > 0;
  }

  isDown(keysym: number): boolean {
    return this.held.has(keysym);
  }

  key(keysym: number, down: boolean): void {
    this.touch();
    const known = this.held.has(keysym);
    if (down) this.held.add(keysym);
    else this.held.delete(keysym);
    if (this.to) {
      if (down || known) this.to.key(keysym, down, this.modifiers());
    } else if (down && !MODIFIERS.has(keysym)) this.keep({ key: keysym, modifiers: this.modifiers() });
  }

  tap(keysym: number): void {
    this.key(keysym, true);
    this.key(keysym, false);
  }

  text(text: string): void {
    if (text === "") return;
    this.touch();
    if (this.to) this.to.text(text);
    else this.keep({ text });
  }

  /** clipboard gives text to the remote clipboard, and to that of every screen
   * from here on: with the connection that gave it the text goes as well. */
  clipboard(text: string): void {
    this.touch();
    this.given = text;
    if (this.to) this.to.clipboard(text);
    else this.keep({ clipboard: text });
  }

  /** copied says what the remote clipboard holds. If that is another text than
   * was given, it was copied over there, and stays by itself. */
  copied(text: string): void {
    if (text !== this.given) this.given = null;
  }

  releaseAll(): void {
    for (const k of [...this.held]) this.key(k, false);
  }

  /** hold makes what is typed wait for the next open. */
  hold(): void {
    if (!this.to && this.giveUp !== undefined) return;
    this.to = null;
    this.giveUp = setTimeout(() => {
      this.waiting = [];
      this.patient = false;
    }, PATIENCE_MS);
  }

  /** open types on this screen from now on; first what an earlier one has left,
   * then what was typed since. */
  open(to: Keys, left: readonly Typed[]): void {
    clearTimeout(this.giveUp);
    this.giveUp = undefined;
    this.patient = true;
    const all = [...left, ...this.waiting];
    this.waiting = [];
    this.to = to;
    if (this.given !== null && !all.some((t) => "clipboard" in t)) to.clipboard(this.given);
    for (const t of all) type(to, t);
    for (const k of this.held) {
      if (MODIFIERS.has(k)) to.key(k, true, []);
      else this.held.delete(k);
    }
  }

  private keep(t: Typed): void {
    if (this.patient && this.waiting.length < MAX_WAITING) this.waiting.push(t);
  }

  private modifiers(): number[] {
    return [...this.held].filter((k) => MODIFIERS.has(k));
  }

  private touch(): void {
    this.lastAt = performance.now();
    this.onTyped();
  }
}

function type(to: Keys, t: Typed): void {
  if ("text" in t) return to.text(t.text);
  if ("clipboard" in t) return to.clipboard(t.clipboard);
  for (const m of t.modifiers) to.key(m, true, []);
  to.key(t.key, true, t.modifiers);
  to.key(t.key, false, t.modifiers);
  for (const m of t.modifiers) to.key(m, false, []);
}

export function isModifier(keysym: number): boolean {
  return MODIFIERS.has(keysym);
}
