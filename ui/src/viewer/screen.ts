import type { Stats } from "./story";
import type { CursorPicture, Role } from "./wire";

/** How the picture comes: video over UDP, video over TCP, or noVNC. */
export type Transport = "udp" | "tcp" | "vnc";

/** Typed is what must be neither lost nor done twice when the transport
 * changes: keys, text, and the clipboard that a pasting key is about to use.
 * modifiers are those that were down with the key. */
export type Typed =
  | { key: number; modifiers: readonly number[] }
  | { text: string }
  | { clipboard: string };

/** Keys takes what is typed. */
export interface Keys {
  key(keysym: number, down: boolean, modifiers: readonly number[]): void;
  text(text: string): void;
  clipboard(text: string): void;
}

/** Figures are what a transport can say about itself; null is not known. */
export interface Figures {
  roundTripMs: number | null;
  framesPerSecond: number | null;
  bitsPerSecond: number | null;
  inputToPixelMs: number | null;
  width: number;
  height: number;
}

/** A Screen is one way to the display, from its first try until leave. */
export interface Screen extends Keys {
  readonly transport: Transport;
  /** Makes its picture the one that is seen and acted on. */
  show(): void;
  /** Everything that is held down over there goes up. */
  release(): void;
  /** Whether nothing is known to be under way to the display. */
  settled(): boolean;
  /** Asks for control; without meaning where everybody has it. */
  takeControl(): void;
  /** Tries again at once, or looks at once whether it is still alive. */
  nudge(): void;
  /** The server may be gone: finds out soon. */
  doubt(): void;
  figures(): Promise<Figures | null>;
  /** Tells the server, where the connection has words. */
  readonly tell?: (stats: Stats) => void;
  /** Ends it for good, its picture included; more than once does no harm.
   * Resolves, always and within a second, to what was typed on it and has not
   * reached the display. */
  leave(): Promise<Typed[]>;
}

/** Life is what a Screen tells whoever chooses among screens. Nothing comes
 * after ended, and nothing after leave. */
export interface Life {
  /** The network path works; the picture is on its way. */
  reached(): void;
  /** A picture is there and input is taken. */
  ready(): void;
  /** It is over, for a reason that can be shown. */
  ended(why: Ended): void;
}

/** ScreenEvents is all that a Screen tells. */
export interface ScreenEvents extends Life {
  clipboard(text: string): void;
  role(role: Role): void;
  cursor(picture: CursorPicture): void;
}

export interface VncPhase {
  phase: "connecting" | "live" | "reconnecting";
  /** Tries that failed in a row. */
  failures: number;
  /** Why the last one failed, for the person. */
  why: string;
}

/** VncLife is that of a screen that comes back by itself; it never ends. */
export interface VncLife extends Life {
  phase(p: VncPhase): void;
  /** The connection broke; ready comes again when it is back. */
  lost(): void;
}

/** Why a Screen ended: "stalled" and "broken" of a connection that had worked,
 * "refused" by the server, "replaced" by another one of the person's. */
export type Ended = "unreached" | "stalled" | "broken" | "refused" | "replaced" | "closing";
