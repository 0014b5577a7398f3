import { sendCandidates, sendOffer, videoTicket } from "../api/webrtc";

/** negotiate makes the offer, hands it over at once, and takes of the answer
 * the candidates of one protocol. Resolves to where the connection's end goes,
 * also when the connection has been closed in the meantime. */
export async function negotiate(pc: RTCPeerConnection, session: string, protocol: "udp" | "tcp"): Promise<string> {
  const ticket = videoTicket(session);
  ticket.catch(() => undefined);
  pc.addTransceiver("video", { direction: "recvonly" });
  await pc.setLocalDescription();
  const offer = pc.localDescription?.sdp ?? "";
  const gathered: RTCIceCandidate[] = [];
  const answered = (async () => sendOffer(session, await ticket, offer))();
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
