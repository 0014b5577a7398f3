// Times in words. All arguments are milliseconds, or RFC 3339 text from the API.

/** clockOf is a length of time as 0:07, 12:30 or 1:02:03; never negative. */
export function clockOf(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  const two = (n: number): string => String(n).padStart(2, "0");
  const hours = Math.floor(s / 3600);
  const minutes = Math.floor((s % 3600) / 60);
  return hours > 0 ? `${hours}:${two(minutes)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`;
}

/** tookOf is how long a step took: < 0.1 s, 0.4 s, 12 s, 3 min 5 s. */
export function tookOf(ms: number): string {
  const t = Math.max(0, ms);
  if (t < 50) return "< 0.1 s";
  if (t < 9_950) return `${(t / 1000).toFixed(1)} s`;
  const s = Math.round(t / 1000);
  if (s < 60) return `${s} s`;
  const m = Math.floor(s / 60);
  return m < 60 ? `${m} min ${s % 60} s` : `${Math.floor(m / 60)} h ${m % 60} min`;
}

/** agoOf is a moment relative to now: just now, 5 minutes ago, in 3 hours. */
export function agoOf(at: string, now: number): string {
  const ms = Date.parse(at) - now;
  if (Number.isNaN(ms)) return "";
  const past = ms <= 0;
  const s = Math.abs(ms) / 1000;
  if (s < 45) return past ? "just now" : "in a moment";
  const [n, unit] = largestUnit(s);
  const words = `${n} ${unit}${n === 1 ? "" : "s"}`;
  return past ? `${words} ago` : `in ${words}`;
}

function largestUnit(s: number): [number, string] {
  if (s < 45 * 60) return [Math.max(1, Math.round(s / 60)), "minute"];
  if (s < 22 * 3600) return [Math.max(1, Math.round(s / 3600)), "hour"];
  if (s < 45 * 86_400) return [Math.max(1, Math.round(s / 86_400)), "day"];
  return [Math.max(1, Math.round(s / (30 * 86_400))), "month"];
}

/** momentOf is the full date and time in the person's own manner. */
export function momentOf(at: string): string {
  const t = new Date(at);
  return Number.isNaN(t.getTime()) ? "" : t.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** hourOf is the time of day with seconds. */
export function hourOf(at: string): string {
  const t = new Date(at);
  return Number.isNaN(t.getTime()) ? "" : t.toLocaleTimeString(undefined, { hour12: false });
}
