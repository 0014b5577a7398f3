// From the browser's names of keys to X keysyms. What a layout, a dead key or
// Caps Lock makes of a key is in KeyboardEvent.key already, so that no layout
// is known here.
import { keysymOf } from "../lib/text";

export const SHIFT_L = 0xffe1;
export const CONTROL_L = 0xffe3;
export const CONTROL_R = 0xffe4;
export const ALT_L = 0xffe9;
export const SUPER_L = 0xffeb;

/** The part of a KeyboardEvent that says which key it is. */
export interface KeyName {
  key: string;
  code: string;
  location: number;
}

const RIGHT = 2;
const NUMPAD = 3;

// Left, right.
const MODIFIERS: Record<string, readonly [number, number]> = {
  Shift: [SHIFT_L, 0xffe2],
  Control: [CONTROL_L, CONTROL_R],
  Alt: [ALT_L, 0xffea],
  Meta: [SUPER_L, 0xffec],
  OS: [SUPER_L, 0xffec],
};

// The lock keys are not here: what they do is in the key's name already, and
// the remote keyboard's own locks stay off. AltGraph neither: it only chooses
// a character.
const NAMED: Record<string, number> = {
  Backspace: 0xff08,
  Tab: 0xff09,
  Clear: 0xff0b,
  Enter: 0xff0d,
  Pause: 0xff13,
  ScrollLock: 0xff14,
  Escape: 0xff1b,
  Home: 0xff50,
  ArrowLeft: 0xff51,
  ArrowUp: 0xff52,
  ArrowRight: 0xff53,
  ArrowDown: 0xff54,
  PageUp: 0xff55,
  PageDown: 0xff56,
  End: 0xff57,
  Select: 0xff60,
  PrintScreen: 0xff61,
  Execute: 0xff62,
  Insert: 0xff63,
  Undo: 0xff65,
  Redo: 0xff66,
  ContextMenu: 0xff67,
  Find: 0xff68,
  Cancel: 0xff69,
  Help: 0xff6a,
  Delete: 0xffff,
  Copy: 0x1008ff57,
  Cut: 0x1008ff58,
  Paste: 0x1008ff6d,
  BrowserBack: 0x1008ff26,
  BrowserForward: 0x1008ff27,
  BrowserStop: 0x1008ff28,
  BrowserRefresh: 0x1008ff73,
  BrowserHome: 0x1008ff18,
  ZoomIn: 0x1008ff8b,
  ZoomOut: 0x1008ff8c,
};

/** modifierOf is the keysym of a modifier key, or 0. */
export function modifierOf({ key, location }: KeyName): number {
  const pair = MODIFIERS[key];
  return pair ? (location === RIGHT ? pair[1] : pair[0]) : 0;
}

/** keysymFor is the keysym of any other key, or 0 where the key types nothing
 * by itself: dead keys and keys of an input method, which end as text, and keys
 * that only this device knows. */
export function keysymFor({ key, location }: KeyName): number {
  if (key === "Enter" && location === NUMPAD) return 0xff8d;
  const named = NAMED[key];
  if (named !== undefined) return named;
  const f = /^F([1-9]|1[0-9]|2[0-4])$/.exec(key);
  if (f) return 0xffbd + Number(f[1]);
  const [c, more] = [...key];
  return c === undefined || more !== undefined ? 0 : keysymOf(c.codePointAt(0) ?? 0);
}

/** charOf is the character that a keysym types, or "". */
export function charOf(keysym: number): string {
  if ((keysym >= 0x20 && keysym < 0x7f) || (keysym >= 0xa0 && keysym <= 0xff)) return String.fromCharCode(keysym);
  const cp = keysym - 0x01000000;
  return cp >= 0x100 && cp <= 0x10ffff ? String.fromCodePoint(cp) : "";
}
