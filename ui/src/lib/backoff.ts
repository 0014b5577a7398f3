const WAITS_MS = [200, 500, 1000, 2000, 4000];

/** Backoff gives the waits between tries: short at first, so that a server that
 * restarts is found at once, and never more than four seconds. */
export class Backoff {
  private tries = 0;

  /** How many waits were taken since the last reset. */
  get count(): number {
    return this.tries;
  }

  /** next is how long to wait before the next try, in milliseconds. */
  next(): number {
    const wait = WAITS_MS[Math.min(this.tries, WAITS_MS.length - 1)] ?? 4000;
    this.tries += 1;
    return wait;
  }

  reset(): void {
    this.tries = 0;
  }
}
