// A small RFB 3.8 server that paints something like a sign-in page, follows
// the viewer's size, and takes Enter or a click on its button as the sign-in.
import type { RawData, WebSocket } from "ws";
import { paint, type Page } from "./paint.ts";
import type { World } from "./world.ts";

const EXTENDED_DESKTOP_SIZE = -308;

export function serveRFB(ws: WebSocket, world: World, signedIn: () => void): void {
  const page: Page = { width: 1280, height: 800, typed: 0, done: false };
  let buffer = Buffer.alloc(0);
  let stage: "version" | "security" | "init" | "normal" = "version";
  let resizable = false;
  let dirty = true;
  let wanted = false;
  let pressed = false;

  const send = (b: Buffer): void => ws.send(b);
  const take = (n: number): Buffer | null => {
    if (buffer.length < n) return null;
    const b = buffer.subarray(0, n);
    buffer = buffer.subarray(n);
    return b;
  };
  const update = (): void => {
    if (!wanted || !dirty) return;
    wanted = dirty = false;
    send(Buffer.concat([rectangles(1), rectangle(0, 0, page.width, page.height, 0), paint(page)]));
  };
  const finish = (): void => {
    if (page.done) return;
    page.done = dirty = true;
    update();
    signedIn();
  };
  const sizeIs = (reason: number, status: number): void => {
    const screen = Buffer.alloc(20);
    screen.writeUInt8(1, 0);
    screen.writeUInt32BE(1, 4);
    screen.writeUInt16BE(page.width, 12);
    screen.writeUInt16BE(page.height, 14);
    send(Buffer.concat([rectangles(1), rectangle(reason, status, page.width, page.height, EXTENDED_DESKTOP_SIZE), screen]));
  };

  const greet = (): boolean => {
    if (stage === "version") {
      if (!take(12)) return false;
      send(Buffer.from([1, 1]));
      stage = "security";
    } else if (stage === "security") {
      if (!take(1)) return false;
      send(Buffer.alloc(4));
      stage = "init";
    } else {
      if (!take(1)) return false;
      const name = Buffer.from("mock");
      const init = Buffer.alloc(24);
      init.writeUInt16BE(page.width, 0);
      init.writeUInt16BE(page.height, 2);
      // 32 bits, little endian, true colour, as noVNC asks for anyway.
      init.set([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16], 4);
      init.writeUInt32BE(name.length, 20);
      send(Buffer.concat([init, name]));
      stage = "normal";
    }
    return true;
  };

  const messages: Record<number, () => boolean> = {
    0: () => take(20) !== null,
    2: () => {
      if (buffer.length < 4) return false;
      const n = buffer.readUInt16BE(2);
      const b = take(4 + 4 * n);
      if (!b) return false;
      const was = resizable;
      for (let i = 0; i < n; i++) resizable ||= b.readInt32BE(4 + 4 * i) === EXTENDED_DESKTOP_SIZE;
      if (resizable && !was) sizeIs(0, 0);
      return true;
    },
    3: () => {
      const b = take(10);
      if (!b) return false;
      wanted = true;
      if (b[1] === 0) dirty = true;
      update();
      return true;
    },
    4: () => {
      const b = take(8);
      if (!b) return false;
      if (b[1] === 1) {
        const key = b.readUInt32BE(4);
        world.seen.keys.push(key);
        if (key === 0xff0d) finish();
        else if (key === 0xff08) page.typed = Math.max(0, page.typed - 1);
        else if (key < 0xff00 || key > 0xffff) page.typed++;
        dirty = true;
        update();
      }
      return true;
    },
    5: () => {
      const b = take(6);
      if (b && b[1] !== 0 && !pressed) world.seen.clicks++;
      if (b) pressed = b[1] !== 0;
      return b !== null;
    },
    6: () => {
      if (buffer.length < 8) return false;
      const b = take(8 + Math.abs(buffer.readInt32BE(4)));
      if (b) world.seen.clipboard = b.subarray(8).toString("latin1");
      return b !== null;
    },
    251: () => {
      if (buffer.length < 8) return false;
      const b = take(8 + 16 * (buffer[6] ?? 0));
      if (!b) return false;
      page.width = b.readUInt16BE(2);
      page.height = b.readUInt16BE(4);
      world.seen.size = [page.width, page.height];
      sizeIs(1, 0);
      dirty = true;
      return true;
    },
  };

  ws.on("message", (data: RawData) => {
    buffer = Buffer.concat([buffer, data as Buffer]);
    for (;;) {
      if (buffer.length === 0) return;
      if (stage !== "normal") {
        if (!greet()) return;
        continue;
      }
      const handle = messages[buffer[0] ?? -1];
      if (!handle) {
        ws.close(1011, "The mock does not know that message.");
        return;
      }
      if (!handle()) return;
    }
  });
  const say = (text: string): void => {
    const body = Buffer.from(text, "latin1");
    const head = Buffer.alloc(8);
    head[0] = 3;
    head.writeUInt32BE(body.length, 4);
    send(Buffer.concat([head, body]));
  };
  world.seen.viewers++;
  world.cutText.add(say);
  ws.on("close", () => world.cutText.delete(say));
  send(Buffer.from("RFB 003.008\n"));
}

function rectangles(n: number): Buffer {
  const b = Buffer.alloc(4);
  b.writeUInt16BE(n, 2);
  return b;
}

function rectangle(x: number, y: number, w: number, h: number, encoding: number): Buffer {
  const b = Buffer.alloc(12);
  b.writeUInt16BE(x, 0);
  b.writeUInt16BE(y, 2);
  b.writeUInt16BE(w, 4);
  b.writeUInt16BE(h, 6);
  b.writeInt32BE(encoding, 8);
  return b;
}
