// The bytes are those that AppendInput of internal/guestapi/screenframe.go makes.
import { describe, expect, it } from "vitest";
import { decode, encode, pieces, type Input } from "../src/viewer/wire";

const hex = (b: Uint8Array): string => [...b].map((x) => x.toString(16).padStart(2, "0")).join("");
const bytes = (h: string): ArrayBuffer => new Uint8Array(h.match(/../g)?.map((x) => parseInt(x, 16)) ?? []).buffer;

describe("encode", () => {
  it.each<[Input, string]>([
    [{ type: "move", id: 1, x: 640, y: 400 }, "6d" + "00000001" + "0280" + "0190"],
    [{ type: "move", id: 0xfffffffe, x: 65535, y: 0 }, "6d" + "fffffffe" + "ffff" + "0000"],
    [{ type: "button", id: 2, x: 1, y: 2, button: 1, down: true }, "64" + "00000002" + "0001" + "0002" + "01" + "01"],
    [{ type: "button", id: 3, x: 1, y: 2, button: 9, down: false }, "64" + "00000003" + "0001" + "0002" + "09" + "00"],
    [{ type: "wheel", id: 4, x: 5, y: 6, dx: 0, dy: 120 }, "77" + "00000004" + "0005" + "0006" + "0000" + "0078"],
    [{ type: "wheel", id: 5, x: 5, y: 6, dx: -120, dy: -1 }, "77" + "00000005" + "0005" + "0006" + "ff88" + "ffff"],
    [{ type: "key", id: 6, keysym: 0xff0d, down: true }, "79" + "00000006" + "0000ff0d" + "01"],
    [{ type: "key", id: 7, keysym: 0x0101f600, down: false }, "79" + "00000007" + "0101f600" + "00"],
    [{ type: "text", id: 8, text: "é語" }, "74" + "00000008" + "c3a9" + "e8aa9e"],
    [{ type: "clipboard", text: "a" }, "70" + "61"],
    [{ type: "clipboard", text: "" }, "70"],
    [{ type: "release" }, "75"],
  ])("%j", (input, want) => expect(hex(encode(input))).toBe(want));

  it("keeps within what the other side takes", () => {
    expect(hex(encode({ type: "move", id: 1, x: -3, y: 70_000 }))).toBe("6d000000010000ffff");
    expect(hex(encode({ type: "wheel", id: 1, x: 0, y: 0, dx: 99_999, dy: -99_999 }))).toBe("7700000001000000002ee0d120");
  });
});

describe("pieces", () => {
  it("cuts between characters", () => {
    expect(pieces("ab語😀c", 4)).toEqual(["ab", "語", "😀", "c"]);
    expect(pieces("")).toEqual([]);
    const long = "ü".repeat(5000);
    expect(pieces(long).join("")).toBe(long);
    for (const p of pieces(long)) expect(new TextEncoder().encode(p).length).toBeLessThanOrEqual(4096);
  });
});

describe("decode", () => {
  it.each([
    ['{"role":"watch"}', { role: "watch" }],
    ['{"role":"king"}', {}],
    ['{"size":{"width":1280,"height":800}}', { size: { width: 1280, height: 800 } }],
    ['{"frame":{"rtp":4294967295,"input":7}}', { frame: { rtp: 4294967295, input: 7 } }],
    ['{"frame":{"rtp":"1"}}', {}],
    ['{"closing":"stopping"}', { closing: "stopping" }],
    ['{"new":"thing"}', {}],
    ["null", {}],
    ["not JSON", {}],
  ])("%s", (text, want) => expect(decode(text)).toEqual(want));

  it("reads the clipboard and the pointer", () => {
    expect(decode(bytes("70c3a9"))).toEqual({ clipboard: "é" });
    expect(decode(bytes("63" + "0001" + "0000" + "0000" + "0000"))).toEqual({ cursor: null });
    const c = decode(bytes("63" + "0001" + "0002" + "0001" + "0002" + "ff0000ff" + "00000000"));
    expect(c).toEqual({ cursor: { hotX: 1, hotY: 2, width: 1, height: 2, rgba: new Uint8ClampedArray([255, 0, 0, 255, 0, 0, 0, 0]) } });
  });

  it.each(["63", "630001000000020002ff", "63000000000101000100", ""])("leaves out %j", (h) => expect(decode(bytes(h))).toEqual({}));
});
