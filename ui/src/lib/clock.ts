// Deadlines are the server's time. A person's device may be minutes off, so
// the page shows them by the server's clock, which each answer's Date carries.

let offsetMs = 0;

/** observeServerDate takes the Date header of an answer. It has whole seconds
 * only, so that a difference below two seconds counts as none. */
export function observeServerDate(header: string | null, now = Date.now()): void {
  if (!header) return;
  const server = Date.parse(header);
  if (Number.isNaN(server)) return;
  const difference = server - now;
  offsetMs = Math.abs(difference) < 2000 ? 0 : difference;
}

/** serverNow is the server's time in milliseconds since 1970. */
export function serverNow(now = Date.now()): number {
  return now + offsetMs;
}
