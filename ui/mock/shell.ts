import type { WebSocket } from "ws";

const PROMPT = "\x1b[1;32mada\x1b[0m:\x1b[34m~\x1b[0m$ ";
const ANSWERS: Record<string, string> = {
  "claude auth status": "\x1b[38;2;215;119;87m✻\x1b[0m Signed in as ada@example.org (Claude Max)",
  "codex login status": "Logged in using ChatGPT",
  help: "This is a mock shell. Try: claude auth status, codex login status, colors, exit",
  colors: Array.from({ length: 16 }, (_, i) => `\x1b[48;5;${i}m   `).join("") + "\x1b[0m",
};

/** serveShell is a shell that knows a handful of commands. */
export function serveShell(ws: WebSocket): void {
  let line = "";
  const print = (s: string): void => ws.send(Buffer.from(s));
  print(`Welcome to your machine. Your credentials are in memory only.\r\n${PROMPT}`);
  ws.on("message", (data, binary) => {
    if (!binary) return;
    for (const c of String(data)) {
      if (c === "\r") {
        print("\r\n");
        const command = line.trim();
        line = "";
        if (command === "exit") {
          ws.send(JSON.stringify({ exit: { code: 0 } }));
          ws.close(1000);
          return;
        }
        if (command) print(`${ANSWERS[command] ?? `sh: ${command}: not found`}\r\n`);
        print(PROMPT);
      } else if (c === "\x7f") {
        if (line) print("\b \b");
        line = line.slice(0, -1);
      } else if (c >= " ") {
        line += c;
        print(c);
      }
    }
  });
}
