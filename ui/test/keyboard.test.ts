// What is typed on which layout, as browsers tell it, and what goes out.
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Keyboard, KeyReader, system, type System } from "../src/viewer/keyboard";
import type { Keys } from "../src/viewer/screen";
import { Typist } from "../src/viewer/typist";

type Press = Parameters<KeyReader["press"]>[0];
interface Event extends Partial<Omit<Press, "getModifierState">> {
  key: string;
  altGraph?: boolean;
}

const event = ({ altGraph = false, ...e }: Event): Press => ({
  code: e.code ?? `Key${e.key}`, location: 0, repeat: false, shiftKey: false, ctrlKey: false, altKey: false, metaKey: false, ...e,
  getModifierState: (name) => name === "AltGraph" && altGraph,
});

function rig(on: System = "other"): { out: string[]; reader: KeyReader; typist: Typist; tap: (e: Event) => boolean; hold: (e: Event) => () => void } {
  const out: string[] = [];
  const name = (k: number): string => NAMES[k] ?? (k > 0x01000000 ? String.fromCodePoint(k - 0x01000000) : k < 0x100 ? String.fromCodePoint(k) : k.toString(16));
  const to: Keys = {
    key: (k, down) => out.push(`${down ? "+" : "-"}${name(k)}`),
    text: (t) => out.push(`"${t}"`),
    clipboard: (t) => out.push(`clipboard "${t}"`),
  };
  const typist = new Typist();
  typist.open(to, []);
  const reader = new KeyReader(typist, on);
  const hold = (e: Event): (() => void) => {
    reader.press(event(e));
    return () => void reader.release(event({ ...e, shiftKey: false, ctrlKey: false, altKey: false, metaKey: false, altGraph: false }));
  };
  const tap = (e: Event): boolean => {
    const took = reader.press(event(e));
    reader.release(event(e));
    return took;
  };
  return { out, reader, typist, tap, hold };
}

const NAMES: Record<number, string> = {
  0xffe1: "Shift", 0xffe2: "ShiftR", 0xffe3: "Ctrl", 0xffe4: "CtrlR", 0xffe9: "Alt", 0xffea: "AltR", 0xffeb: "Super",
  0xff08: "Back", 0xff09: "Tab", 0xff0d: "Enter", 0xff8d: "KPEnter", 0xff1b: "Esc", 0xff51: "Left", 0xff53: "Right", 0xff50: "Home", 0xffff: "Del", 0xffbe: "F1", 0xffc9: "F12",
};

describe("every layout", () => {
  // Shift where the layout needs it; what comes out is the character alone,
  // whatever key makes it.
  const shift = (key: string, code = "Digit2"): Event => ({ key, code, shiftKey: true });
  const altGr = (key: string, code = "KeyQ"): Event => ({ key, code, altGraph: true });
  const plain = (key: string, code = "KeyA"): Event => ({ key, code });
  it.each<[layout: string, typed: Event[], want: string]>([
    ["US", [plain("a"), shift("@"), shift("A", "KeyA"), plain("/", "Slash"), shift("~", "Backquote")], "a@A/~"],
    ["UK", [shift('"'), shift("£", "Digit3"), plain("#", "Backslash"), altGr("€", "Digit4"), altGr("á", "KeyA")], '"£#€á'],
    ["German", [plain("z", "KeyY"), plain("ü", "BracketLeft"), plain("ß", "Minus"), shift("/", "Digit7"), altGr("@"), altGr("{", "Digit7"), altGr("€", "KeyE")], "züß/@{€"],
    ["French", [plain("q", "KeyA"), plain("é", "Digit2"), shift("2"), plain("ç", "Digit9"), altGr("@", "Digit0"), altGr("#", "Digit3"), plain("ù", "Quote")], "qé2ç@#ù"],
    ["Spanish", [plain("ñ", "Semicolon"), plain("¡", "Equal"), shift("¿", "Equal"), altGr("@", "Digit2"), altGr("€", "KeyE"), plain("ç", "Backslash")], "ñ¡¿@€ç"],
    ["Swedish", [plain("å", "BracketLeft"), plain("ä", "Quote"), plain("ö", "Semicolon"), altGr("@", "Digit2"), altGr("$", "Digit4"), altGr("\\", "Minus")], "åäö@$\\"],
    ["Polish", [altGr("ą", "KeyA"), altGr("ł", "KeyL"), altGr("ż", "KeyZ"), { ...altGr("Ź", "KeyX"), shiftKey: true }, altGr("ó", "KeyO")], "ąłżŹó"],
    ["Russian", [plain("ф"), plain("ы", "KeyS"), shift("Ё", "Backquote"), shift("№", "Digit3"), plain("ъ", "BracketRight")], "фыЁ№ъ"],
    ["Greek", [plain("α"), plain("ς", "KeyW"), shift("Ω", "KeyV"), plain("ή", "KeyH"), plain(";", "KeyQ")], "αςΩή;"],
    ["Turkish", [plain("ı", "KeyI"), plain("i", "Quote"), shift("İ", "Quote"), plain("ğ", "BracketLeft"), plain("ş", "Semicolon"), altGr("₺", "KeyT"), altGr("@")], "ıiİğş₺@"],
    ["Czech", [plain("ě", "Digit2"), plain("ř", "Digit5"), plain("ů", "Semicolon"), shift("1", "Digit1"), altGr("&", "KeyC")], "ěřů1&"],
    ["Hebrew", [plain("ש"), plain("ן", "KeyI"), plain("'", "KeyW"), shift("₪", "Digit4")], "שן'₪"],
    ["Arabic", [plain("ش"), plain("ة", "KeyM"), plain("؟", "Slash")], "شة؟"],
    ["Japanese, direct", [shift('"'), plain("@", "BracketLeft"), plain("¥", "IntlYen"), shift("_", "IntlRo")], '"@¥_'],
    ["emoji from a key", [plain("😀", "KeyE")], "😀"],
  ])("%s", (_, typed, want) => {
    const { out, tap } = rig();
    for (const e of typed) expect(tap(e)).toBe(true);
    expect(out).toEqual([...want].flatMap((c) => [`+${c}`, `-${c}`]));
  });

  it.each<[what: string, e: Event]>([
    ["a dead key", { key: "Dead", code: "Equal" }],
    ["a key of an input method", { key: "Process", code: "KeyA", keyCode: 229 }],
    ["a key in a composition", { key: "k", isComposing: true }],
    ["an unknown key of a soft keyboard", { key: "Unidentified", code: "", keyCode: 229 }],
    ["Caps Lock, which is in the characters", { key: "CapsLock", code: "CapsLock" }],
    ["Num Lock", { key: "NumLock", code: "NumLock" }],
    ["a key of this device", { key: "AudioVolumeUp", code: "AudioVolumeUp" }],
  ])("leaves %s to the text box", (_, e) => {
    const { out, tap } = rig();
    expect(tap(e)).toBe(false);
    expect(out).toEqual([]);
  });
});

describe("keys by name", () => {
  it.each([
    ["Enter", 0, "Enter"], ["Enter", 3, "KPEnter"], ["Tab", 0, "Tab"], ["Backspace", 0, "Back"], ["Delete", 0, "Del"], ["Escape", 0, "Esc"],
    ["ArrowLeft", 0, "Left"], ["ArrowLeft", 3, "Left"], ["7", 3, "7"], ["+", 3, "+"], ["F1", 0, "F1"], ["F12", 0, "F12"],
  ])("%s at %i is %s", (key, location, want) => {
    const { out, tap } = rig();
    tap({ key, location });
    expect(out).toEqual([`+${want}`, `-${want}`]);
  });

  it("tells left from right", () => {
    const { out, hold } = rig();
    hold({ key: "Shift", code: "ShiftRight", location: 2, shiftKey: true })();
    hold({ key: "Control", code: "ControlRight", location: 2, ctrlKey: true })();
    hold({ key: "Alt", code: "AltRight", location: 2, altKey: true })();
    expect(out).toEqual(["+ShiftR", "-ShiftR", "+CtrlR", "-CtrlR", "+AltR", "-AltR"]);
  });

  it("repeats what is held, and lets it go by the name it went down by", () => {
    const { out, reader } = rig();
    reader.press(event({ key: "a", code: "KeyA" }));
    reader.press(event({ key: "A", code: "KeyA", repeat: true }));
    reader.release(event({ key: "A", code: "KeyA" }));
    expect(out).toEqual(["+a", "+a", "-a"]);
  });
});

describe("modifiers", () => {
  it("go down and up where they do", () => {
    const { out, hold, tap } = rig();
    const up = hold({ key: "Control", code: "ControlLeft", location: 1, ctrlKey: true });
    tap({ key: "c", code: "KeyC", ctrlKey: true });
    up();
    expect(out).toEqual(["+Ctrl", "+c", "-c", "-Ctrl"]);
  });

  it("are borrowed for a key whose modifier went down elsewhere", () => {
    const { out, tap } = rig();
    tap({ key: "Tab", code: "Tab", shiftKey: true });
    tap({ key: "a", code: "KeyA", ctrlKey: true });
    expect(out).toEqual(["+Shift", "+Tab", "-Tab", "-Shift", "+Ctrl", "+a", "-a", "-Ctrl"]);
  });

  it("whose release was lost go up with the next key", () => {
    const { out, reader, tap } = rig();
    reader.press(event({ key: "Alt", code: "AltLeft", location: 1, altKey: true }));
    tap({ key: "x", code: "KeyX" });
    expect(out).toEqual(["+Alt", "-Alt", "+x", "-x"]);
  });

  it("of Windows' AltGr are taken back", () => {
    const { out, reader, tap } = rig("windows");
    reader.press(event({ key: "Control", code: "ControlLeft", location: 1, ctrlKey: true }));
    reader.press(event({ key: "AltGraph", code: "AltRight", location: 2, ctrlKey: true, altKey: true, altGraph: true }));
    tap({ key: "@", code: "KeyQ", ctrlKey: true, altKey: true, altGraph: true });
    reader.release(event({ key: "Control", code: "ControlLeft", location: 1 }));
    reader.release(event({ key: "AltGraph", code: "AltRight", location: 2 }));
    expect(out).toEqual(["+Ctrl", "-Ctrl", "+@", "-@"]);
  });

  it("are all released at once", () => {
    const { out, reader } = rig();
    reader.press(event({ key: "Shift", code: "ShiftLeft", location: 1, shiftKey: true }));
    reader.press(event({ key: "A", code: "KeyA", shiftKey: true }));
    reader.releaseAll();
    expect(out).toEqual(["+Shift", "+A", "-Shift", "-A"]);
  });
});

describe("a Mac", () => {
  it("has Command for Control, and tells no key up beside it", () => {
    const { out, hold, reader } = rig("mac");
    const up = hold({ key: "Meta", code: "MetaLeft", location: 1, metaKey: true });
    reader.press(event({ key: "c", code: "KeyC", metaKey: true }));
    up();
    expect(out).toEqual(["+Ctrl", "+c", "-c", "-Ctrl"]);
  });

  it("chooses characters with Option", () => {
    const { out, hold, tap } = rig("mac");
    const up = hold({ key: "Alt", code: "AltLeft", location: 1, altKey: true });
    tap({ key: "@", code: "KeyL", altKey: true });
    up();
    expect(out).toEqual(["+@", "-@"]);
  });

  it("moves and deletes by words with Option", () => {
    const { out, tap } = rig("mac");
    tap({ key: "ArrowLeft", code: "ArrowLeft", altKey: true });
    expect(out).toEqual(["+Ctrl", "+Left", "-Left", "-Ctrl"]);
  });

  it.each([["MacIntel", "mac"], ["iPhone", "mac"], ["Win32", "windows"], ["Linux x86_64", "other"]] as const)("%s is %s", (p, want) => expect(system(p)).toBe(want));
});

describe("Keyboard", () => {
  const out: string[] = [];
  let keyboard: Keyboard;
  beforeEach(() => {
    out.length = 0;
    const typist = new Typist();
    typist.open({ key: (k, down) => out.push(`${down ? "+" : "-"}${k.toString(16)}`), text: (t) => out.push(t), clipboard: () => undefined }, []);
    keyboard = new Keyboard(typist);
    document.body.append(keyboard.box);
  });
  afterEach(() => keyboard.stop());

  const compose = (text: string): void => {
    keyboard.box.dispatchEvent(new CompositionEvent("compositionstart"));
    for (let i = 1; i <= text.length; i++) {
      keyboard.box.value = text.slice(0, i);
      keyboard.box.dispatchEvent(new InputEvent("input", { inputType: "insertCompositionText" }));
    }
    keyboard.box.dispatchEvent(new CompositionEvent("compositionend", { data: text }));
  };

  it.each(["日本語を入力", "안녕", "中文", "é", "👩‍💻", "ở"])("sends %s, composed, once and whole", (text) => {
    compose(text);
    // Firefox tells of the input after the composition's end.
    keyboard.box.dispatchEvent(new InputEvent("input", { inputType: "insertCompositionText" }));
    expect(out).toEqual([text]);
    expect(keyboard.box.value).toBe("");
  });

  it("takes what a soft keyboard does without keys", () => {
    keyboard.box.value = "word ";
    keyboard.box.dispatchEvent(new InputEvent("input", { inputType: "insertText" }));
    keyboard.box.dispatchEvent(new InputEvent("beforeinput", { inputType: "deleteContentBackward", cancelable: true }));
    keyboard.box.dispatchEvent(new InputEvent("beforeinput", { inputType: "insertLineBreak", cancelable: true }));
    expect(out).toEqual(["word ", "+ff08", "-ff08", "+ff0d", "-ff0d"]);
  });

  it("lets go of all keys when it loses the focus", () => {
    keyboard.box.dispatchEvent(new KeyboardEvent("keydown", { key: "a", code: "KeyA", cancelable: true }));
    keyboard.box.dispatchEvent(new FocusEvent("blur"));
    expect(out).toEqual(["+61", "-61"]);
  });

  it("keeps from the browser what it has taken", () => {
    const taken = new KeyboardEvent("keydown", { key: "Tab", code: "Tab", cancelable: true });
    const left = new KeyboardEvent("keydown", { key: "Dead", code: "Equal", cancelable: true });
    keyboard.box.dispatchEvent(taken);
    keyboard.box.dispatchEvent(left);
    expect([taken.defaultPrevented, left.defaultPrevented]).toEqual([true, false]);
  });
});
