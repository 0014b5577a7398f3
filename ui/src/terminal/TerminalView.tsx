import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useTitle } from "../lib/hooks";
import { TerminalConnection, type TerminalState } from "./connection";
import type { Emulator } from "./emulator";

// With fewer failures than these the connection is just on its way back.
const EXPLAIN_AFTER = 3;
const UNLOADED = "The terminal could not be loaded. The server may be away, or the page was updated.";
const AGAIN = "\r\n\x1b[2m[connected again]\x1b[0m\r\n";

/** Keys that a soft keyboard does not have. */
const KEYS: readonly { label: string; bytes: string }[] = [
  { label: "Esc", bytes: "\x1b" },
  { label: "Tab", bytes: "\t" },
  { label: "Ctrl+C", bytes: "\x03" },
  { label: "Ctrl+D", bytes: "\x04" },
  { label: "↑", bytes: "\x1b[A" },
  { label: "↓", bytes: "\x1b[B" },
  { label: "←", bytes: "\x1b[D" },
  { label: "→", bytes: "\x1b[C" },
];

export function TerminalView(): JSX.Element {
  useTitle("Terminal");
  const host = useRef<HTMLDivElement>(null);
  const connection = useRef<TerminalConnection | null>(null);
  const emulator = useRef<Emulator | null>(null);
  const [state, setState] = useState<TerminalState>({ phase: "starting" });
  const [spoken, setSpoken] = useState(false);

  useEffect(() => {
    let gone = false;
    const open = async (): Promise<void> => {
      const { openEmulator } = await import("./emulator");
      if (gone || !host.current) return;
      const e = openEmulator(host.current);
      const t = e.terminal;
      const c = new TerminalConnection({
        size: () => ({ cols: t.cols, rows: t.rows }),
        onState: setState,
        onData: (bytes) => t.write(bytes),
        onAgain: () => t.write(AGAIN),
      });
      t.onData((text) => c.send(text));
      t.onBinary((text) => c.sendBytes(Uint8Array.from(text, (ch) => ch.charCodeAt(0))));
      t.onResize(({ cols, rows }) => c.resize(cols, rows));
      t.focus();
      emulator.current = e;
      connection.current = c;
    };
    open().catch(() => setState({ phase: "reconnecting", failures: EXPLAIN_AFTER, why: UNLOADED }));
    return () => {
      gone = true;
      connection.current?.close();
      emulator.current?.dispose();
    };
  }, []);

  useEffect(() => {
    if (emulator.current) emulator.current.terminal.options.screenReaderMode = spoken;
  }, [spoken]);

  const press = (bytes: string): void => {
    connection.current?.send(bytes);
    emulator.current?.terminal.focus();
  };
  const restart = (): void => {
    if (!connection.current) return location.reload();
    connection.current.restart();
    emulator.current?.terminal.focus();
  };
  const broken = state.phase === "reconnecting" && state.failures >= EXPLAIN_AFTER;
  return (
    <section class="terminal-view" aria-labelledby="terminal-title">
      <div class="terminal-head">
        <h1 id="terminal-title">Your machine</h1>
        <p class="status" role="status" data-testid="terminal-status" data-phase={state.phase}>
          <span class="dot" aria-hidden="true" />
          {wordOf(state)}
        </p>
        <label class="check">
          <input type="checkbox" checked={spoken} onChange={(e) => setSpoken(e.currentTarget.checked)} />
          Screen reader
        </label>
      </div>
      <div class="terminal-frame">
        <div class="terminal" ref={host} data-testid="terminal" />
        {(broken || state.phase === "ended") && (
          <div class="veil" role="alert">
            <p>{state.phase === "ended" ? endWord(state.code) : state.why}</p>
            <button type="button" class="button" data-testid="terminal-restart" onClick={restart}>
              {state.phase === "ended" ? "Open a new shell" : "Reconnect now"}
            </button>
          </div>
        )}
      </div>
      <div class="terminal-keys" role="toolbar" aria-label="Keys">
        {KEYS.map((k) => (
          <button
            key={k.label}
            type="button"
            class="button small"
            onPointerDown={(e) => e.preventDefault()}
            onClick={() => press(k.bytes)}
          >
            {k.label}
          </button>
        ))}
      </div>
    </section>
  );
}

function wordOf(s: TerminalState): string {
  switch (s.phase) {
    case "starting":
      return "Starting your machine…";
    case "connecting":
      return "Connecting…";
    case "live":
      return "Live";
    case "reconnecting":
      return "Reconnecting…";
    case "ended":
      return "The shell has ended";
  }
}

function endWord(code: number | null): string {
  return code === null || code === 0 ? "The shell has ended." : `The shell has ended with code ${code}.`;
}
