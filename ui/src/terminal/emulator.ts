import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";

const THEME = {
  background: "#171a18",
  foreground: "#e4e6e1",
  cursor: "#8fc9b3",
  cursorAccent: "#171a18",
  selectionBackground: "#3a5a4e",
  black: "#2a2e2b",
  red: "#e8837a",
  green: "#8fc9a0",
  yellow: "#dcc07a",
  blue: "#86b3e0",
  magenta: "#c9a0d8",
  cyan: "#7fc7c4",
  white: "#d5d8d2",
  brightBlack: "#8a918c",
  brightRed: "#f4a49c",
  brightGreen: "#aee0bc",
  brightYellow: "#ecd79d",
  brightBlue: "#a9cdf0",
  brightMagenta: "#dfc0ea",
  brightCyan: "#a3dfdc",
  brightWhite: "#ffffff",
};

export interface Emulator {
  readonly terminal: Terminal;
  dispose: () => void;
}

/** openEmulator puts a terminal into host and keeps it as large as host is. */
export function openEmulator(host: HTMLElement): Emulator {
  const terminal = new Terminal({
    allowProposedApi: false,
    cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches,
    fontFamily: 'ui-monospace, "SF Mono", Menlo, "Cascadia Mono", "DejaVu Sans Mono", "Liberation Mono", monospace',
    fontSize: 14,
    lineHeight: 1.2,
    macOptionIsMeta: true,
    minimumContrastRatio: 4.5,
    scrollback: 5000,
    theme: THEME,
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(host);
  fit.fit();
  const observer = new ResizeObserver(() => fit.fit());
  observer.observe(host);
  return {
    terminal,
    dispose: () => {
      observer.disconnect();
      terminal.dispose();
    },
  };
}
