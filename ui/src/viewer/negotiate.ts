import { sendCandidates, sendOffer, sendRestart, videoTicket } from "../api/webrtc";

/** negotiate makes the offer, hands it over at once, and takes of the answer
 * the candidates of one protocol. Resolves to where the connection's end goes,
 * also when the connection has been closed in the meantime. */
export async function negotiate(pc: RTCPeerConnection, session: string, window: string, protocol: "udp" | "tcp"): Promise<string> {
  const ticket = videoTicket(session);
  ticket.catch(() => undefined);
  pc.addTransceiver("video", { direction: "recvonly" });
  await pc.setLocalDescription();
  const offer = pc.localDescription?.sdp ?? "";
  const gathered: RTCIceCandidate[] = [];
  const answered = (async () => sendOffer(session, window, await ticket, offer))();
  pc.onicecandidate = (e) => {
    if (e.candidate?.candidate) gathered.push(e.candidate);
    // All at once: the server finds this side by its checks anyway.
    else if (!e.candidate && gathered.length > 0) {
      answered
        .then(({ location }) => (pc.connectionState === "closed" ? undefined : sendCandidates(location, fragment(offer, gathered))))
        .catch(() => undefined);
    }
  };
  const { sdp, location } = await answered;
  if (pc.signalingState !== "closed") await pc.setRemoteDescription({ type: "answer", sdp: only(sdp, protocol) });
  return location;
}

/** Restarts looks for another path when the network changes, until stop. Where
 * there is none the picture stalls, which is somebody else's matter. */
export class Restarts {
  private busy = false;

  constructor(
    private readonly pc: RTCPeerConnection,
    private readonly location: Promise<string>,
    private readonly protocol: "udp" | "tcp",
  ) {
    addEventListener("online", this.now);
  }

  readonly now = (): void => {
    if (this.busy || this.pc.connectionState === "new" || this.pc.connectionState === "connecting") return;
    this.busy = true;
    const done = (): void => void (this.busy = false);
    this.location.then((l) => restart(this.pc, l, this.protocol)).then(done, done);
  };

  stop(): void {
    removeEventListener("online", this.now);
  }
}

// The server finds this side's new addresses by its checks.
async function restart(pc: RTCPeerConnection, location: string, protocol: "udp" | "tcp"): Promise<void> {
  pc.onicecandidate = null; // what it gathers belongs to no offer that is sent
  pc.restartIce();
  await pc.setLocalDescription();
  const answer = await sendRestart(location, fragment(pc.localDescription?.sdp ?? "", []));
  const sdp = renewed(pc.currentRemoteDescription?.sdp ?? "", answer);
  if (pc.signalingState === "have-local-offer") await pc.setRemoteDescription({ type: "answer", sdp: only(sdp, protocol) });
}

/** renewed puts a fragment's name and password into a description. */
export function renewed(sdp: string, from: string): string {
  for (const name of ["ice-ufrag", "ice-pwd"]) {
    const line = new RegExp(`^a=${name}:[^\\r\\n]*`, "gm");
    const value = line.exec(from)?.[0];
    if (value) sdp = sdp.replace(line, () => value);
  }
  return sdp;
}

/** only leaves of an answer's candidates those of one protocol. */
export function only(sdp: string, protocol: "udp" | "tcp"): string {
  return sdp
    .split(/\r\n|\n/)
    .filter((line) => {
      const found = /^a=candidate:\S+ \d+ (\S+) /i.exec(line);
      return !found || found[1]?.toLowerCase() === protocol;
    })
    .join("\r\n");
}

/** fragment is a trickle of candidates (RFC 8840) for the one transport of an
 * offer. */
export function fragment(offer: string, candidates: readonly Pick<RTCIceCandidate, "candidate" | "sdpMid">[]): string {
  const line = (name: string): string => new RegExp(`^a=${name}:.*$`, "m").exec(offer)?.[0].trim() ?? "";
  const mid = candidates[0]?.sdpMid ?? "0";
  const lines = [line("ice-ufrag"), line("ice-pwd"), "m=video 9 UDP/TLS/RTP/SAVPF 0", `a=mid:${mid}`];
  for (const c of candidates) lines.push(`a=${c.candidate}`);
  return `${lines.join("\r\n")}\r\n`;
}
