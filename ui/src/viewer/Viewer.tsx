import type { JSX } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { useLatest } from "../lib/hooks";
import { Icon, type IconName } from "../parts/Icon";
import { ClipboardPanel } from "./ClipboardPanel";
import { brief, says } from "./choice";
import { ViewerConnection, type ViewerState } from "./connection";
import { FiguresPanel } from "./FiguresPanel";
import { KeyboardBar } from "./KeyboardBar";
import { offerOwnClipboard, takeClipboard } from "./systemClipboard";
import { usePasting } from "./usePasting";

interface Props {
  session: string;
  /** Whether the session has a screen to show now. */
  active: boolean;
  /** Grows each time that the server was found again: no need to wait on. */
  poke: number;
  /** Grows each time that another connection to the server broke: one that does
   * not tell may be gone with it. */
  doubts: number;
  /** Shown in place of a screen that there is not yet, or not any more. */
  idle: Idle | null;
}

export interface Idle {
  /** One or two words for the status line. */
  status: string;
  notice: string;
  busy: boolean;
}

const CONNECTING: ViewerState = { phase: "connecting", failures: 0, why: "", transport: null, reason: "", role: null };

type Panel = "keyboard" | "clipboard" | "figures";
type Phase = ViewerState["phase"] | "stopped";
// With fewer failures than these the connection is just on its way back.
const EXPLAIN_AFTER = 3;

export function Viewer({ session, active, poke, doubts, idle }: Props): JSX.Element {
  const frame = useRef<HTMLElement>(null);
  const stage = useRef<HTMLDivElement>(null);
  const status = useRef<HTMLParagraphElement>(null);
  const connection = useRef<ViewerConnection | null>(null);
  const [state, setState] = useState<ViewerState>(CONNECTING);
  const [remote, setRemote] = useState({ text: "", cut: false });
  const [panel, setPanel] = useState<Panel | "none">(() => (isTouch() ? "keyboard" : "none"));
  const onState = useLatest(setState);

  useEffect(() => {
    if (!active || !stage.current) return;
    const c = new ViewerConnection({
      session,
      stage: stage.current,
      onState: (s) => onState.current(s),
      onClipboard: (text) => {
        setRemote(text);
        void takeClipboard(text.text);
      },
    });
    connection.current = c;
    return () => {
      c.stop();
      connection.current = null;
    };
  }, [session, active, onState]);

  useEffect(() => connection.current?.retryNow(), [poke]);
  useEffect(() => connection.current?.doubt(), [doubts]);
  usePasting(stage, (text) => connection.current?.paste(text));

  const keys = useCallback((k: readonly number[]) => connection.current?.keys(k), []);
  const offer = useCallback((text: string) => connection.current?.offer(text), []);
  const leave = (e: KeyboardEvent): void => {
    if (e.key !== "Escape" || !e.shiftKey) return;
    e.preventDefault();
    e.stopPropagation();
    status.current?.focus();
  };

  const figures = useCallback(() => connection.current?.figures() ?? Promise.resolve(null), []);

  const phase: Phase = active ? state.phase : "stopped";
  const transport = active ? state.transport : null;
  const broken = phase === "reconnecting" && state.failures >= EXPLAIN_AFTER;
  // A short break is bridged: a box that is disabled would lose the focus, and
  // a phone its keyboard.
  const shut = phase === "connecting" || phase === "stopped" || broken;
  const toggle = (p: Panel): void => setPanel(panel === p ? "none" : p);
  return (
    <section class="viewer" ref={frame} aria-label="The browser machine's screen" data-phase={phase} data-transport={transport ?? undefined}>
      <div class="viewer-bar">
        <p class="status" ref={status} tabIndex={-1} role="status" data-testid="viewer-status" data-phase={phase}>
          <span class="dot" aria-hidden="true" />
          {active || !idle ? WORDS[phase] : idle.status}
        </p>
        <p class="how" role="status" data-testid="viewer-transport" data-reason={state.reason}>
          {active ? brief(state) : ""}
        </p>
        <div class="tools" hidden={!active}>
          <Tool icon="keyboard" label="Keyboard" on={panel === "keyboard"} onClick={() => toggle("keyboard")} />
          <Tool icon="clipboard" label="Clipboard" on={panel === "clipboard"} onClick={() => toggle("clipboard")} />
          <Tool icon="activity" name="figures" label="Connection" on={panel === "figures"} onClick={() => toggle("figures")} />
          {document.fullscreenEnabled && (
            <Tool icon="expand" label="Full screen" onClick={() => void toggleFullscreen(frame.current)} />
          )}
        </div>
      </div>
      <div
        class="stage"
        ref={stage}
        data-testid="viewer"
        onKeyDownCapture={leave}
        onFocusCapture={() => void offerOwnClipboard(offer)}
        onBlurCapture={(e) => delete e.currentTarget.dataset["focus"]}
      />
      {!active && idle && (
        <div class="veil">
          {idle.busy && <span class="spinner" aria-hidden="true" />}
          <p>{idle.notice}</p>
        </div>
      )}
      {phase === "connecting" && !broken && <div class="veil quiet" aria-hidden="true"><span class="spinner" /></div>}
      {broken && (
        <div class="veil" role="alert" data-testid="viewer-problem">
          <p>{state.why || "The connection to the screen is gone."}</p>
          <p class="hint">Nothing is lost: the browser machine goes on, and this page keeps trying to reach it.</p>
          <button type="button" class="button" data-testid="viewer-retry" onClick={() => connection.current?.retryNow()}>
            Reconnect now
          </button>
        </div>
      )}
      {active && phase === "live" && state.role === "watch" && (
        <div class="watching" data-testid="viewer-watching">
          <p role="status">You are watching. Another window has the mouse and the keyboard.</p>
          <button type="button" class="button small" data-testid="take-control" onClick={() => connection.current?.takeControl()}>
            Take control
          </button>
        </div>
      )}
      {active && panel === "figures" && <FiguresPanel read={figures} transport={transport} says={says(state)} />}
      {active && panel === "keyboard" && <KeyboardBar onKeys={keys} disabled={shut} />}
      {active && panel === "clipboard" && <ClipboardPanel remote={remote} onSend={offer} disabled={shut} />}
    </section>
  );
}

const WORDS: Record<Phase, string> = {
  connecting: "Connecting…",
  live: "Live",
  reconnecting: "Reconnecting…",
  stopped: "Disconnected",
};

function Tool(p: { icon: IconName; name?: string; label: string; on?: boolean; onClick: () => void }): JSX.Element {
  return (
    <button type="button" class="tool" aria-pressed={p.on} onClick={p.onClick} data-testid={`tool-${p.name ?? p.icon}`}>
      <Icon name={p.icon} />
      <span>{p.label}</span>
    </button>
  );
}

function isTouch(): boolean {
  return matchMedia("(pointer: coarse)").matches;
}

async function toggleFullscreen(el: HTMLElement | null): Promise<void> {
  try {
    if (document.fullscreenElement) await document.exitFullscreen();
    else await el?.requestFullscreen();
  } catch {
    // The browser said no; the page stays as it is.
  }
}
