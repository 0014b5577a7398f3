/** What fingers mean, in the window's coordinates. */
export interface GestureTarget {
  move(x: number, y: number): void;
  button(button: number, down: boolean, x: number, y: number): void;
  /** By how much to scroll; 120 is a notch of a wheel. */
  scroll(dx: number, dy: number, x: number, y: number): void;
}

interface Finger {
  x: number;
  y: number;
}

// A finger is never quite still.
const STILL_PX = 10;
const LONG_MS = 600;
// So much of a finger's way is what a notch scrolls.
const PX_PER_NOTCH = 40;
const LEFT = 1;
const RIGHT = 3;

/** Gestures reads fingers: a tap is a click, a long press a right click, one
 * finger drags, two scroll as if they held the page. */
export class Gestures {
  private readonly fingers = new Map<number, Finger>();
  private state: "none" | "maybe" | "drag" | "scroll" | "over" = "none";
  private start: Finger = { x: 0, y: 0 };
  private middle: Finger = { x: 0, y: 0 };
  private long: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly to: GestureTarget) {}

  take(type: string, id: number, x: number, y: number): void {
    if (type === "pointerdown") return this.down(id, x, y);
    if (!this.fingers.has(id)) return;
    if (type === "pointermove") return this.moved(id, x, y);
    this.up(id, x, y, type === "pointercancel");
  }

  stop(): void {
    clearTimeout(this.long);
    this.fingers.clear();
    this.state = "none";
  }

  private down(id: number, x: number, y: number): void {
    this.fingers.set(id, { x, y });
    clearTimeout(this.long);
    if (this.fingers.size === 1) {
      this.state = "maybe";
      this.start = { x, y };
      this.long = setTimeout(() => {
        this.state = "over";
        this.click(RIGHT);
      }, LONG_MS);
    } else if (this.fingers.size === 2 && this.state === "maybe") {
      this.state = "scroll";
      this.middle = this.centre();
      this.start = this.middle;
    }
  }

  private moved(id: number, x: number, y: number): void {
    this.fingers.set(id, { x, y });
    if (this.state === "maybe") {
      if (Math.hypot(x - this.start.x, y - this.start.y) < STILL_PX) return;
      clearTimeout(this.long);
      this.state = "drag";
      this.to.move(this.start.x, this.start.y);
      this.to.button(LEFT, true, this.start.x, this.start.y);
    }
    if (this.state === "drag" && this.fingers.size === 1) this.to.move(x, y);
    if (this.state !== "scroll" || this.fingers.size < 2) return;
    const now = this.centre();
    const notches = 120 / PX_PER_NOTCH;
    this.to.scroll((this.middle.x - now.x) * notches, (this.middle.y - now.y) * notches, this.start.x, this.start.y);
    this.middle = now;
  }

  private up(id: number, x: number, y: number, cancelled: boolean): void {
    clearTimeout(this.long);
    this.fingers.delete(id);
    if (this.state === "maybe" && !cancelled) this.click(LEFT);
    if (this.state === "drag") this.to.button(LEFT, false, x, y);
    // Fingers that are left mean nothing any more.
    this.state = this.fingers.size === 0 ? "none" : "over";
  }

  private click(button: number): void {
    const { x, y } = this.start;
    this.to.move(x, y);
    this.to.button(button, true, x, y);
    this.to.button(button, false, x, y);
  }

  private centre(): Finger {
    const all = [...this.fingers.values()];
    return { x: all.reduce((s, f) => s + f.x, 0) / all.length, y: all.reduce((s, f) => s + f.y, 0) / all.length };
  }
}
