import { ensureMachine, terminalSocketURL, terminalTicket } from "../api/client";
import { ApiError, sentence } from "../api/errors";
import { openWithTicket, SocketClosed } from "../api/socket";
import { Backoff } from "../lib/backoff";

export type TerminalState =
  | { phase: "starting" | "connecting" | "live" }
  | { phase: "reconnecting"; failures: number; why: string }
  | { phase: "ended"; code: number | null };

interface Options {
  size: () => { cols: number; rows: number };
  onState: (s: TerminalState) => void;
  onData: (bytes: Uint8Array) => void;
  /** A connection opened after an earlier one of this terminal. */
  onAgain: () => void;
}

// Below the server's limit for one message.
const CHUNK = 32 * 1024;
const STABLE_MS = 3_000;

/** TerminalConnection keeps a shell on the person's own machine attached: it
 * has the machine made or started, connects with a new ticket each time, and
 * goes on until the shell ends or close. */
export class TerminalConnection {
  private readonly backoff = new Backoff();
  private readonly encoder = new TextEncoder();
  private ws: WebSocket | null = null;
  private abort = new AbortController();
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private stableTimer: ReturnType<typeof setTimeout> | undefined;
  private connectedOnce = false;
  private closed = false;

  constructor(private readonly o: Options) {
    void this.connect();
  }

  close(): void {
    this.closed = true;
    this.drop();
  }

  /** restart opens a new shell after one has ended, or tries again at once. */
  restart(): void {
    if (!this.closed) void this.connect();
  }

  send(text: string): void {
    this.sendBytes(this.encoder.encode(text));
  }

  sendBytes(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.ws?.readyState !== WebSocket.OPEN) return;
    for (let i = 0; i < bytes.length; i += CHUNK) this.ws.send(bytes.subarray(i, i + CHUNK));
  }

  resize(cols: number, rows: number): void {
    if (this.ws?.readyState === WebSocket.OPEN) this.ws.send(JSON.stringify({ resize: { cols, rows } }));
  }

  private async connect(): Promise<void> {
    this.drop();
    const abort = new AbortController();
    this.abort = abort;
    try {
      this.o.onState({ phase: "starting" });
      const machine = await ensureMachine();
      if (abort.signal.aborted) return;
      this.o.onState({ phase: "connecting" });
      const { cols, rows } = this.o.size();
      const ws = await openWithTicket((s) => terminalTicket(machine.id, s), terminalSocketURL(machine.id, cols, rows), abort.signal);
      if (abort.signal.aborted) ws.close();
      else this.attach(ws, { cols, rows });
    } catch (err) {
      if (!abort.signal.aborted) this.failed(err instanceof SocketClosed || err instanceof ApiError ? err.message : sentence(err));
    }
  }

  private attach(ws: WebSocket, opened: { cols: number; rows: number }): void {
    this.ws = ws;
    let exit: number | null | undefined;
    ws.onmessage = (m: MessageEvent<unknown>) => {
      if (m.data instanceof ArrayBuffer) this.o.onData(new Uint8Array(m.data));
      else if (typeof m.data === "string") exit = exitOf(m.data) ?? exit;
    };
    ws.onclose = (e) => {
      if (this.ws !== ws) return;
      this.ws = null;
      clearTimeout(this.stableTimer);
      if (exit !== undefined || e.code === 1000) this.o.onState({ phase: "ended", code: exit ?? null });
      else this.failed(new SocketClosed(e.code, e.reason).message);
    };
    this.stableTimer = setTimeout(() => this.backoff.reset(), STABLE_MS);
    this.o.onState({ phase: "live" });
    if (this.connectedOnce) this.o.onAgain();
    this.connectedOnce = true;
    const now = this.o.size();
    if (now.cols !== opened.cols || now.rows !== opened.rows) this.resize(now.cols, now.rows);
  }

  private failed(why: string): void {
    const wait = this.backoff.next();
    this.o.onState({ phase: "reconnecting", failures: this.backoff.count, why });
    this.retryTimer = setTimeout(() => this.restart(), wait);
  }

  private drop(): void {
    clearTimeout(this.retryTimer);
    clearTimeout(this.stableTimer);
    this.abort.abort();
    const ws = this.ws;
    this.ws = null;
    ws?.close();
  }
}

function exitOf(text: string): number | undefined {
  try {
    const m = JSON.parse(text) as { exit?: { code?: unknown } } | null;
    return typeof m?.exit?.code === "number" ? m.exit.code : undefined;
  } catch {
    return undefined;
  }
}
