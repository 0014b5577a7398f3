// What there is to choose from, when, and what the person is told about it.
import type { Life, Screen, Transport, Typed, VncLife, VncPhase } from "./screen";

/** Why the person is not on the best transport; "" when they are, or nothing is
 * known yet. */
export type Reason = "" | "off" | "unsupported" | "unreached" | "stalled" | "broken" | "refused" | "replaced";

export interface LadderState extends VncPhase {
  transport: Transport | null;
  reason: Reason;
}

/** Whether there is live video at all: the server has it and the browser can. */
export type Offered = "yes" | "off" | "unsupported";

/** What a Ladder is made of. */
export interface LadderOptions {
  /** Asks the server; rejects when it cannot be reached. */
  offered: (signal: AbortSignal) => Promise<Offered>;
  video: (transport: "udp" | "tcp", life: Life) => Screen;
  vnc: (life: VncLife) => Screen;
  /** Takes the typing from one screen to the next. */
  typist: { hold(): void; open(to: Screen, left: readonly Typed[]): void };
  /** Whether a switch would disturb nobody: nothing is held, nothing was done
   * just now. */
  calm: () => boolean;
  onState: (s: LadderState) => void;
  /** Another screen is the one that is seen. */
  onScreen: (s: Screen) => void;
}

// How long UDP is tried alone; then TCP is tried beside it and noVNC gets
// ready unseen.
export const HEAD_START_MS = 1000;
// When the person gets noVNC, if there is no video by then.
export const FALL_MS = 2500;
// A try that has no picture by then is given up.
export const TRY_MS = 8000;
// A screen that is lost so soon after the server was in doubt is lost with it.
export const DOUBT_MS = 5000;
export const ASK_AGAIN_MS = 100;
// The waits before the next try for something better: while on noVNC, and
// while on video over TCP, where there is less to win.
export const WAITS = { vnc: [3_000, 6_000, 12_000, 24_000, 60_000], tcp: [30_000, 60_000, 120_000, 300_000] } as const;
// Video that has lasted this long was worth coming back for.
export const STABLE_MS = 30_000;

export const RANK: Record<Transport, number> = { udp: 2, tcp: 1, vnc: 0 };

/** says is what the person is told about the transport, in plain words. */
export function says({ transport, reason }: Pick<LadderState, "transport" | "reason">): string {
  if (transport === "udp") return "Live video, the direct way (UDP).";
  if (transport === "tcp") return "Live video over TCP, since your network does not let the direct way (UDP) through.";
  if (transport !== "vnc") return "";
  return `Single pictures (VNC): ${BECAUSE[reason]}`;
}

const BACK = "It is tried again by itself.";
const BECAUSE: Record<Reason, string> = {
  "": "live video is not there yet.",
  off: "live video is switched off on this server.",
  unsupported: "this browser has no live video.",
  unreached: `live video does not get through your network. ${BACK}`,
  stalled: `live video stopped moving. ${BACK}`,
  broken: `live video broke off. ${BACK}`,
  refused: `the server has no live video for you now. ${BACK}`,
  replaced: "live video went to another window of yours.",
};

/** brief is the same in a few words, for the line above the screen. */
export function brief({ transport, reason }: Pick<LadderState, "transport" | "reason">): string {
  if (transport === "udp") return "Direct video (UDP)";
  if (transport === "tcp") return "Video over TCP: UDP is blocked";
  return transport === "vnc" ? `Pictures (VNC)${BRIEFLY[reason]}` : "";
}

const BRIEFLY: Record<Reason, string> = {
  "": "",
  off: ": video is off on this server",
  unsupported: ": no video in this browser",
  unreached: ": video is blocked, trying again",
  stalled: ": video stalled, trying again",
  broken: ": video broke off, trying again",
  refused: ": no video now, trying again",
  replaced: ": video went to another window",
};
