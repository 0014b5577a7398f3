// Text that becomes key presses in the remote browser.

export const KEY_BACKSPACE = 0xff08;
export const KEY_TAB = 0xff09;
export const KEY_ENTER = 0xff0d;
export const KEY_CONTROL = 0xffe3;
export const KEY_ALT = 0xffe9;
export const KEY_META = 0xffe7;

/** The clipboard's limit in bytes of UTF-8, in both directions and on every
 * transport (guestapi.MaxClipboard): with its type it is one message of 256 KiB,
 * and browsers send and take no longer one. */
export const CLIPBOARD_BYTES = 256 * 1024 - 1;

/** keysymOf is the X keysym of one code point: Latin-1 is its own keysym,
 * everything else has one in the Unicode range. 0 means: no key. */
export function keysymOf(codePoint: number): number {
  if (codePoint === 0x0a || codePoint === 0x0d) return KEY_ENTER;
  if (codePoint === 0x09) return KEY_TAB;
  if (codePoint === 0x08) return KEY_BACKSPACE;
  if (codePoint < 0x20 || (codePoint >= 0x7f && codePoint < 0xa0)) return 0;
  if (codePoint <= 0xff) return codePoint;
  return 0x01000000 | codePoint;
}

/** keysymsOf is the keys that type text. A line break is one Enter. */
export function keysymsOf(text: string): number[] {
  const keys: number[] = [];
  for (const c of text.replace(/\r\n?/g, "\n")) {
    const key = keysymOf(c.codePointAt(0) ?? 0);
    if (key !== 0) keys.push(key);
  }
  return keys;
}

/** keysBetween is the keys that turn what was typed before into what stands
 * now: Backspace for what went, then what came. Soft keyboards, word
 * suggestions and pasting all change the box's text without a key press. */
export function keysBetween(before: string, now: string): number[] {
  const a = [...before];
  const b = [...now];
  let same = 0;
  while (same < a.length && same < b.length && a[same] === b[same]) same++;
  const keys: number[] = Array.from({ length: a.length - same }, () => KEY_BACKSPACE);
  return keys.concat(keysymsOf(b.slice(same).join("")));
}

/** clip cuts text to at most limit bytes of UTF-8, never inside a character. */
export function clip(text: string, limit = CLIPBOARD_BYTES): { text: string; cut: boolean } {
  const bytes = new TextEncoder().encode(text);
  if (bytes.length <= limit) return { text, cut: false };
  let end = limit;
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return { text: new TextDecoder().decode(bytes.subarray(0, end)), cut: true };
}
