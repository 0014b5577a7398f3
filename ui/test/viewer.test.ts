import { readFileSync } from "node:fs";
import RFB from "@novnc/novnc";
import { describe, expect, it } from "vitest";
import { codeOf } from "../src/account/useAuth";
import { styleSheetElement } from "../src/terminal/styleSheet";
import { expectedSize, remoteSize } from "../src/viewer/size";
import { strict } from "../tools/strictXterm";

describe("remoteSize", () => {
  it.each([
    [{ w: 1280, h: 800 }, { w: 1280, h: 800 }],
    [{ w: 871.5, h: 653.4 }, { w: 871, h: 653 }],
    [{ w: 390, h: 600 }, { w: 500, h: 769 }],
    [{ w: 844, h: 280 }, { w: 1205, h: 400 }],
    [{ w: 3840, h: 2160 }, { w: 1920, h: 1080 }],
    [{ w: 0, h: 300 }, { w: 0, h: 0 }],
  ])("%j becomes %j", (view, want) => expect(remoteSize(view)).toEqual(want));
});

describe("expectedSize", () => {
  it.each([
    [{ w: 1280, h: 800 }, { w: 870, h: 653 }],
    [{ w: 390, h: 844 }, { w: 500, h: 548 }],
    [{ w: 844, h: 390 }, { w: 1217, h: 400 }],
  ])("%j becomes %j", (window, want) => expect(expectedSize(window)).toEqual(want));
});

describe("noVNC", () => {
  it("still has what ViewerRFB uses of its insides", () => {
    const methods = Object.getOwnPropertyNames(RFB.prototype);
    expect(methods).toContain("_screenSize");
    expect(methods).toContain("_requestRemoteResize");
    expect(String(Reflect.get(RFB.prototype, "clipboardPasteFrom"))).toContain("this._clipboardText = text");
    const messages = Reflect.get(RFB, "messages") as Record<string, unknown>;
    expect(String(messages["extendedClipboardProvide"])).toContain("(sock, formats, inData)");
  });

  it("still asks for the size through them", () => {
    const source = Reflect.get(RFB.prototype, "_requestRemoteResize") as object;
    expect(String(source)).toContain("this._screenSize()");
    expect(String(source)).toContain("this._pendingRemoteResize = true");
    expect(String(Reflect.get(RFB.prototype, "sendKey"))).toContain("this._rfbConnectionState !== 'connected'");
  });
});

describe("strictXterm", () => {
  const xterm = readFileSync("node_modules/@xterm/xterm/lib/xterm.mjs", "utf8");

  it("leaves no style element and no style attribute", () => {
    const code = strict(xterm);
    expect(code).not.toMatch(/createElement\(["'`]style/);
    expect(code).not.toMatch(/setAttribute\(["'`]style/);
    expect(code.match(/\$strictStyle\(\)/g)).toHaveLength(3);
    expect(code).toMatch(/_addStyle\((\w),(\w)\)\{\1\.style\.cssText\+=`\$\{\2\};`\}/);
  });

  it("refuses an xterm.js that it does not know", () => {
    expect(() => strict(xterm.replace('createElement("style")', "createStyle()"))).toThrow(/has changed/);
    expect(() => strict(`${xterm};e.setAttribute("style",x)`)).toThrow(/does not know/);
  });
});

describe("styleSheetElement", () => {
  it("takes effect as a constructed sheet, until it is removed", () => {
    const before = document.adoptedStyleSheets.length;
    const el = styleSheetElement();
    document.body.append(el);
    el.textContent = ".x { color: red }";
    expect(el.textContent).toBe(".x { color: red }");
    expect(document.adoptedStyleSheets).toHaveLength(before + 1);
    expect(document.adoptedStyleSheets.at(-1)?.cssRules).toHaveLength(1);
    el.remove();
    expect(document.adoptedStyleSheets).toHaveLength(before);
    expect(el.isConnected).toBe(false);
  });
});

describe("codeOf", () => {
  it.each([
    ["http://127.0.0.1:8080/#login=abc-123_X", "abc-123_X"],
    ["#login=abc", "abc"],
    ["  https://a.example/activity#x=1&login=a%2Bb  ", "a+b"],
    ["abcdefgh12345678", "abcdefgh12345678"],
    ["#main", null],
    ["short", null],
    ["#login=", null],
    ["#login=%E0%A4%A", null],
    ["http://127.0.0.1:8080/", null],
  ])("%j", (text, want) => expect(codeOf(text)).toBe(want));
});
