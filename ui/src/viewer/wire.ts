// What the page and the gateway say to each other on the data channels. The
// bytes are those of internal/guestapi/screenframe.go: a byte of type, then the
// payload, numbers big-endian. Words are JSON in text messages.

/** The limits that the other side refuses beyond. */
export const MAX_TEXT_BYTES = 4 << 10;
export const MAX_WHEEL = 120 * 100;
const MAX_CURSOR_SIDE = 128;

/** A place on the remote screen, in its pixels. */
export interface Point {
  x: number;
  y: number;
}

/** What a person does; the counterpart of guestapi.Input. */
export type Input =
  | ({ type: "move"; id: number } & Point)
  | ({ type: "button"; id: number; button: number; down: boolean } & Point)
  | ({ type: "wheel"; id: number; dx: number; dy: number } & Point)
  | { type: "key"; id: number; keysym: number; down: boolean }
  | { type: "text"; id: number; text: string }
  | { type: "clipboard"; text: string }
  | { type: "release" };

const LETTER = { move: "m", button: "d", wheel: "w", key: "y", text: "t", clipboard: "p", release: "u" } as const;
const SIZE = { move: 9, button: 11, wheel: 13, key: 10, text: 5, clipboard: 1, release: 1 } as const;

/** encode makes the bytes of one message. What is out of range is brought into
 * it: the other side would drop the connection for it. */
export function encode(input: Input): Uint8Array<ArrayBuffer> {
  const text = input.type === "text" || input.type === "clipboard" ? new TextEncoder().encode(input.text) : NOTHING;
  const head = SIZE[input.type];
  const bytes = new Uint8Array(head + text.length);
  const v = new DataView(bytes.buffer);
  bytes[0] = LETTER[input.type].charCodeAt(0);
  bytes.set(text, head);
  if ("id" in input) v.setUint32(1, input.id);
  if ("x" in input) {
    v.setUint16(5, within(input.x, 0, 0xffff));
    v.setUint16(7, within(input.y, 0, 0xffff));
  }
  switch (input.type) {
    case "button":
      v.setUint8(9, within(input.button, 1, 9));
      v.setUint8(10, input.down ? 1 : 0);
      break;
    case "wheel":
      v.setInt16(9, within(input.dx, -MAX_WHEEL, MAX_WHEEL));
      v.setInt16(11, within(input.dy, -MAX_WHEEL, MAX_WHEEL));
      break;
    case "key":
      v.setUint32(5, input.keysym);
      v.setUint8(9, input.down ? 1 : 0);
      break;
  }
  return bytes;
}

const NOTHING = new Uint8Array(0);

function within(n: number, min: number, max: number): number {
  return Math.min(max, Math.max(min, Math.round(n)));
}

/** pieces cuts text into parts that each fit into one message, never inside a
 * character. */
export function pieces(text: string, limit = MAX_TEXT_BYTES): string[] {
  const out: string[] = [];
  let piece = "";
  let bytes = 0;
  for (const c of text) {
    const n = new TextEncoder().encode(c).length;
    if (bytes + n > limit) {
      out.push(piece);
      piece = "";
      bytes = 0;
    }
    piece += c;
    bytes += n;
  }
  if (piece !== "") out.push(piece);
  return out;
}

/** The pointer's picture; null is no pointer. */
export type CursorPicture = { hotX: number; hotY: number; width: number; height: number; rgba: Uint8ClampedArray<ArrayBuffer> } | null;

export type Closing = "ended" | "signed_out" | "stopping" | "replaced";
export type Role = "control" | "watch";

/** What the gateway says. A message may say several things. */
export interface Said {
  cursor?: CursorPicture;
  clipboard?: string;
  role?: Role;
  size?: { width: number; height: number };
  frame?: { rtp: number; input: number };
  closing?: Closing;
}

/** decode reads a message of the gateway. What it does not know is left out:
 * the gateway may be newer than the page. */
export function decode(data: ArrayBuffer | string): Said {
  if (typeof data === "string") return words(data);
  const b = new Uint8Array(data);
  switch (b[0]) {
    case 0x63: // c
      return cursorOf(data);
    case 0x70: // p
      return { clipboard: new TextDecoder().decode(b.subarray(1)) };
    default:
      return {};
  }
}

function cursorOf(data: ArrayBuffer): Said {
  if (data.byteLength < 9) return {};
  const v = new DataView(data);
  const [hotX, hotY, width, height] = [v.getUint16(1), v.getUint16(3), v.getUint16(5), v.getUint16(7)];
  if (width > MAX_CURSOR_SIDE || height > MAX_CURSOR_SIDE || data.byteLength !== 9 + 4 * width * height) return {};
  if (width === 0 || height === 0) return { cursor: null };
  return { cursor: { hotX, hotY, width, height, rgba: new Uint8ClampedArray(data.slice(9)) } };
}

function words(text: string): Said {
  let m: unknown;
  try {
    m = JSON.parse(text);
  } catch {
    return {};
  }
  if (typeof m !== "object" || m === null) return {};
  const { role, size, frame, closing } = m as Record<string, unknown>;
  const said: Said = {};
  if (role === "control" || role === "watch") said.role = role;
  if (closing === "ended" || closing === "signed_out" || closing === "stopping" || closing === "replaced") said.closing = closing;
  const s = numbers(size, "width", "height");
  if (s) said.size = s;
  const f = numbers(frame, "rtp", "input");
  if (f) said.frame = f;
  return said;
}

function numbers<K extends string>(of: unknown, ...names: K[]): Record<K, number> | undefined {
  if (typeof of !== "object" || of === null) return undefined;
  const out = {} as Record<K, number>;
  for (const n of names) {
    const value: unknown = (of as Record<string, unknown>)[n];
    if (typeof value !== "number") return undefined;
    out[n] = value;
  }
  return out;
}
