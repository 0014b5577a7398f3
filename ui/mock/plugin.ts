import type { Server } from "node:http";
import type { Http2SecureServer } from "node:http2";
import type { Socket } from "node:net";
import type { Connect, Plugin } from "vite";
import { WebSocketServer, type WebSocket } from "ws";
import { api } from "./http.ts";
import { serveRFB } from "./rfb.ts";
import { serveShell } from "./shell.ts";
import { World } from "./world.ts";

// The policy that the real server sends.
export const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data: blob:",
  "font-src 'self'",
  "connect-src 'self'",
  "worker-src 'self'",
  "manifest-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** mockServer answers for Anteroom's server, in `vite --mode mock` and, under
 * the real content security policy, in `vite preview --mode mock`. */
export function mockServer(): Plugin {
  const world = new World();
  const open = new Set<Socket>();

  const middleware =
    (policy: boolean): Connect.NextHandleFunction =>
    (req, res, next) => {
      if (policy) res.setHeader("Content-Security-Policy", POLICY);
      const ms = /^\/mock\/restart\?ms=(\d+)$/.exec(req.url ?? "")?.[1];
      if (ms) {
        world.downUntil = Date.now() + Number(ms);
        for (const s of open) if (s !== req.socket) s.destroy();
        res.writeHead(204).end();
        return;
      }
      if (Date.now() < world.downUntil && req.url?.startsWith("/api/")) {
        req.socket.destroy();
        return;
      }
      api(world, req, res).then((done) => done || next(), next);
    };

  const sockets = (server: Server | Http2SecureServer | null): void => {
    const wss = new WebSocketServer({ noServer: true, maxPayload: 1 << 20 });
    server?.on("connection", (s: Socket) => {
      open.add(s);
      s.on("close", () => open.delete(s));
    });
    server?.on("upgrade", (req, socket, head) => {
      const url = new URL(req.url ?? "/", "http://mock");
      const vnc = /^\/api\/v1\/sessions\/(\w+)\/vnc$/.exec(url.pathname);
      const terminal = /^\/api\/v1\/machines\/(\w+)\/terminal$/.exec(url.pathname);
      if (!vnc && !terminal) return;
      if (Date.now() < world.downUntil) {
        socket.destroy();
        return;
      }
      wss.handleUpgrade(req, socket as Socket, head, (ws) =>
        admit(world, ws, () => {
          if (terminal) return serveShell(ws);
          const state = world.sessions.find((s) => s.id === vnc?.[1])?.state;
          if (state !== "waiting" && state !== "capturing") return ws.close(4409, "The session has no screen at the moment.");
          serveRFB(ws, world, () => world.signInDone(vnc?.[1] ?? ""));
        }),
      );
    });
  };

  return {
    name: "anteroom-mock",
    configureServer(server) {
      server.middlewares.use(middleware(false));
      sockets(server.httpServer as Server | null);
    },
    configurePreviewServer(server) {
      server.middlewares.use(middleware(true));
      sockets(server.httpServer as Server);
    },
  };
}

function admit(world: World, ws: WebSocket, go: () => void): void {
  ws.once("message", (data, binary) => {
    try {
      const { ticket } = JSON.parse(String(data)) as { ticket: string };
      if (binary || !world.tickets.delete(ticket)) ws.close(4401, "The ticket is wrong, used or too old.");
      else go();
    } catch {
      ws.close(4400, "The first message was not a ticket.");
    }
  });
}
