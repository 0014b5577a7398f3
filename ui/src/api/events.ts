import { Backoff } from "../lib/backoff";
import type { SessionEvent } from "./types";

interface Handlers {
  /** Each event once, in order of seq, across all reconnects. */
  onEvent: (e: SessionEvent) => void;
  /** The stream is (again) open; all that was missed follows as events. */
  onOpen: () => void;
  /** The stream broke or could not be opened: time to ask the server
   * directly. Called once per try. */
  onDown: () => void;
}

// A page that slept longer than this has probably lost its connection without
// being told.
const STALE_AFTER_HIDDEN_MS = 20_000;

/** EventStream follows server-sent events for as long as it is open: all that
 * there are, or those from now on. It does its own reconnecting: EventSource
 * gives up for good after an HTTP error, as a server or proxy that is just
 * starting gives, and waits seconds otherwise. It continues after the last seq
 * that it has seen. From now on, nothing is missed by who asks for the rest at
 * each onOpen. */
export class EventStream {
  private source: EventSource | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly backoff = new Backoff();
  private last = 0;
  private hiddenAt = 0;
  private closed = false;

  constructor(
    private readonly url: string,
    private readonly handlers: Handlers,
    private readonly from: "first" | "now" = "first",
  ) {
    document.addEventListener("visibilitychange", this.onVisibility);
    addEventListener("online", this.reopen);
    this.open();
  }

  close(): void {
    this.closed = true;
    document.removeEventListener("visibilitychange", this.onVisibility);
    removeEventListener("online", this.reopen);
    this.drop();
  }

  private open(): void {
    const source = new EventSource(this.url + this.query());
    this.source = source;
    source.onopen = () => {
      this.backoff.reset();
      this.handlers.onOpen();
    };
    source.onmessage = (m: MessageEvent<string>) => this.take(m.data);
    source.onerror = () => {
      this.drop();
      this.timer = setTimeout(() => this.open(), this.backoff.next());
      this.handlers.onDown();
    };
  }

  private query(): string {
    if (this.last > 0) return `?after=${this.last}`;
    return this.from === "now" ? "?from=now" : "";
  }

  private take(data: string): void {
    const e = parseEvent(data);
    if (!e || e.seq <= this.last) return;
    this.last = e.seq;
    this.handlers.onEvent(e);
  }

  private drop(): void {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  private readonly reopen = (): void => {
    if (this.closed) return;
    this.drop();
    this.open();
  };

  private readonly onVisibility = (): void => {
    if (document.visibilityState === "hidden") {
      this.hiddenAt = Date.now();
    } else if (this.hiddenAt > 0 && Date.now() - this.hiddenAt > STALE_AFTER_HIDDEN_MS) {
      this.reopen();
    }
  };
}

function parseEvent(data: string): SessionEvent | null {
  try {
    const e = JSON.parse(data) as Partial<SessionEvent> | null;
    if (typeof e?.seq !== "number" || typeof e.kind !== "string" || typeof e.at !== "string") return null;
    return { message: "", ...e } as SessionEvent;
  } catch {
    return null;
  }
}
