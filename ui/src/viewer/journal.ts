import type { Typed } from "./screen";

// A path that has delivered something this long after a key was sent has had
// time to send the key again as well.
const SURE_MS = 1000;

interface Entry {
  id: number;
  at: number;
  typed: Typed;
}

/** Journal knows what was typed on a connection and may not have reached the
 * display, so that the next transport can do it instead.
 *
 * What is promised for a connection that ends in the middle of typing:
 *
 * - Where the server says at the end which input it had handed on (the answer
 *   to DELETE), each character is typed exactly once.
 * - Where it does not, a character that a picture has confirmed ({"frame"}), or
 *   that was sent a second before the last sign of life, is never typed again,
 *   and all others are. So none is dropped while the path delivers what it has
 *   accepted within that second, and one is repeated only if it arrived and
 *   every picture that would have shown it was lost.
 * - Clicks, the wheel and a modifier pressed alone are done at most once: done
 *   late, they would hit another thing than was meant.
 *
 * It holds because a confirmation of an input is one of all typed before it:
 * while a key is open here, moves go on the ordered channel as well, and cannot
 * overtake it. */
export class Journal {
  private open: Entry[] = [];

  /** Whether all that was typed has reached the display, as far as is known. */
  get empty(): boolean {
    return this.open.length === 0;
  }

  /** add notes what is sent with this id, or before the message with it. */
  add(id: number, typed: Typed, now: number): void {
    this.open.push({ id, at: now, typed });
  }

  /** applied takes the id of the newest input that the display has had. */
  applied(id: number): void {
    this.open = this.open.filter((e) => e.id > id);
  }

  /** heard says that something has come over the path at this moment. */
  heard(now: number): void {
    if (this.open.length > 0) this.open = this.open.filter((e) => e.at > now - SURE_MS);
  }

  /** left is what has still to be typed, in its order. */
  left(): Typed[] {
    return this.open.map((e) => e.typed);
  }
}
