import type { Ticket } from "./types";

// From asking for the ticket to the open socket.
const OPEN_MS = 10_000;
const LATE = "The server did not answer in time.";

/** SocketClosed says why a WebSocket ended. The message may be shown. */
export class SocketClosed extends Error {
  constructor(
    readonly code: number,
    reason: string,
  ) {
    super(reason || closeSentence(code));
    this.name = "SocketClosed";
  }
}

/** closeSentence is for closes that came without words. */
export function closeSentence(code: number): string {
  switch (code) {
    case 1000:
      return "The connection was closed.";
    case 1001:
      return "The server is restarting.";
    case 1006:
      return "The connection to the server broke.";
    case 1013:
      return "The screen broke off.";
    case 4401:
      return "The server did not accept the connection's ticket.";
    case 4404:
      return "The server does not know this session any more.";
    case 4408:
      return "The server waited too long for the connection's ticket.";
    case 4409:
      return "There is nothing to connect to at the moment.";
    default:
      return "The connection to the server ended unexpectedly.";
  }
}

/** openWithTicket fetches a fresh ticket, opens the WebSocket and sends the
 * ticket as its first message. It resolves before the server's first message is
 * dispatched, so that a caller that sets its handlers at once misses nothing.
 * The caller owns the open socket; a refused ticket shows as its close event.
 * Rejects with ApiError, SocketClosed, or what ticket threw. */
export async function openWithTicket(
  ticket: (signal: AbortSignal) => Promise<Ticket>,
  url: string,
  signal: AbortSignal,
): Promise<WebSocket> {
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(OPEN_MS)]);
  const { ticket: secret } = await ticket(deadline).catch((err: unknown) => {
    throw deadline.aborted && !signal.aborted ? new SocketClosed(1006, LATE) : err;
  });
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url);
    ws.binaryType = "arraybuffer";
    const settle = (done: () => void): void => {
      ws.onopen = ws.onclose = null;
      deadline.removeEventListener("abort", onAbort);
      done();
    };
    const onAbort = (): void =>
      settle(() => {
        ws.close();
        reject(signal.aborted ? new SocketClosed(1000, "") : new SocketClosed(1006, LATE));
      });
    deadline.addEventListener("abort", onAbort);
    ws.onclose = (e) => settle(() => reject(new SocketClosed(e.code, e.reason)));
    ws.onopen = () =>
      settle(() => {
        ws.send(JSON.stringify({ ticket: secret }));
        resolve(ws);
      });
  });
}
