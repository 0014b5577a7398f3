import { Gestures } from "./gestures";
import { MAX_WHEEL, type Point } from "./wire";

/** What a pointer does on the remote screen, at a place in its pixels. */
export interface PointerTarget {
  move(at: Point): void;
  button(button: number, down: boolean, at: Point): void;
  wheel(dx: number, dy: number, at: Point): void;
}

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** place is where on a screen of the given size a point of the window is, when
 * the screen fills the box as far as its shape allows; the nearest pixel of
 * the screen for points beside it. Both are in the units of the style sheet, so
 * that the device's pixel ratio does not matter. */
export function place(x: number, y: number, box: Box, screen: { width: number; height: number }): Point {
  const scale = Math.min(box.width / screen.width, box.height / screen.height);
  if (!(scale > 0) || !Number.isFinite(scale)) return { x: 0, y: 0 };
  const left = box.left + (box.width - screen.width * scale) / 2;
  const top = box.top + (box.height - screen.height * scale) / 2;
  const clamp = (v: number, max: number): number => Math.max(0, Math.min(max - 1, Math.floor(v)));
  return { x: clamp((x - left) / scale, screen.width), y: clamp((y - top) / scale, screen.height) };
}

// X's numbers of the buttons, by the browser's.
const BUTTONS = [1, 2, 3, 8, 9];
// What browsers report for one notch of a wheel, and what a notch is for X.
const NOTCH = 120;
const PIXELS = 100;
const LINES = 3;

/** Pointer reads mouse, pen and fingers on an element, until stop. Moves go out
 * at most once per animation frame; a button carries its own place and comes
 * in order. */
export class Pointer {
  private last: Point | null = null;
  private pending: Point | null = null;
  private frame = 0;
  private readonly down = new Set<number>();
  private rest = { x: 0, y: 0 };
  private readonly gestures: Gestures;
  private readonly stopping = new AbortController();

  constructor(
    private readonly el: HTMLElement,
    private readonly at: (x: number, y: number) => Point,
    private readonly to: PointerTarget,
  ) {
    this.gestures = new Gestures({
      move: (x, y) => this.move(x, y),
      button: (b, down, x, y) => this.button(b, down, x, y),
      scroll: (dx, dy, x, y) => this.scroll(dx, dy, x, y),
    });
    const on = <K extends keyof HTMLElementEventMap>(type: K, fn: (e: HTMLElementEventMap[K]) => void): void =>
      el.addEventListener(type, fn, { signal: this.stopping.signal, passive: false });
    on("pointerdown", (e) => this.onPointer(e));
    on("pointermove", (e) => this.onPointer(e));
    on("pointerup", (e) => this.onPointer(e));
    on("pointercancel", (e) => this.onPointer(e));
    on("wheel", (e) => this.onWheel(e));
    on("contextmenu", (e) => e.preventDefault());
    // The browser's own back and forward would leave the page.
    on("mouseup", (e) => e.button > 2 && e.preventDefault());
    on("auxclick", (e) => e.preventDefault());
    on("dragstart", (e) => e.preventDefault());
  }

  stop(): void {
    this.stopping.abort();
    this.gestures.stop();
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.pending = null;
  }

  private onPointer(e: PointerEvent): void {
    if (e.pointerType === "touch") {
      if (e.type === "pointerdown") this.capture(e);
      this.gestures.take(e.type, e.pointerId, e.clientX, e.clientY);
      return;
    }
    if (e.type === "pointercancel") {
      for (const b of [...this.down]) this.button(b, false, e.clientX, e.clientY);
      return;
    }
    // Further buttons beside one that is down come as moves.
    const b = BUTTONS[e.button];
    const held = b !== undefined && (e.buttons & (BITS[e.button] ?? 0)) !== 0;
    if (b === undefined || held === this.down.has(b)) {
      if (e.type === "pointermove") this.move(e.clientX, e.clientY);
      return;
    }
    if (held) this.capture(e);
    this.button(b, held, e.clientX, e.clientY);
  }

  private capture(e: PointerEvent): void {
    try {
      this.el.setPointerCapture(e.pointerId);
    } catch {
      // The pointer is gone already.
    }
  }

  private onWheel(e: WheelEvent): void {
    e.preventDefault();
    const unit = e.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? NOTCH / PIXELS : e.deltaMode === WheelEvent.DOM_DELTA_LINE ? NOTCH / LINES : NOTCH;
    this.scroll(e.deltaX * unit, e.deltaY * unit, e.clientX, e.clientY);
  }

  private scroll(dx: number, dy: number, x: number, y: number): void {
    this.flush();
    // Fine scrolling comes in fractions, whose rest counts with the next.
    const sum = { x: this.rest.x + dx, y: this.rest.y + dy };
    const whole = { x: Math.trunc(sum.x), y: Math.trunc(sum.y) };
    this.rest = { x: sum.x - whole.x, y: sum.y - whole.y };
    if (whole.x === 0 && whole.y === 0) return;
    const most = (v: number): number => Math.max(-MAX_WHEEL, Math.min(MAX_WHEEL, v));
    this.to.wheel(most(whole.x), most(whole.y), this.at(x, y));
  }

  private button(button: number, down: boolean, x: number, y: number): void {
    this.pending = null;
    if (down) this.down.add(button);
    else this.down.delete(button);
    this.last = this.at(x, y);
    this.to.button(button, down, this.last);
  }

  // The first move of a frame goes at once: waiting for the frame's end would
  // only add to what the person waits.
  private move(x: number, y: number): void {
    this.pending = this.at(x, y);
    if (this.frame !== 0) return;
    this.flush();
    this.frame = requestAnimationFrame(this.onFrame);
  }

  private readonly onFrame = (): void => {
    this.frame = this.flush() ? requestAnimationFrame(this.onFrame) : 0;
  };

  private flush(): boolean {
    const p = this.pending;
    this.pending = null;
    if (!p || (p.x === this.last?.x && p.y === this.last.y)) return false;
    this.last = p;
    this.to.move(p);
    return true;
  }
}

// MouseEvent.buttons has the middle and the right button the other way round.
const BITS = [1, 4, 2, 8, 16];
