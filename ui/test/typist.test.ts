import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Keys } from "../src/viewer/screen";
import { Typist } from "../src/viewer/typist";

describe("Typist", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  function screen(): Keys & { out: string[] } {
    const out: string[] = [];
    return { out, key: (k, down) => out.push(`${down ? "+" : "-"}${k.toString(16)}`), text: (t) => out.push(t), clipboard: (t) => out.push(`[${t}]`) };
  }

  it("carries over what is typed between two screens, after what the first has left", () => {
    const t = new Typist();
    const a = screen();
    const b = screen();
    t.open(a, []);
    t.text("1");
    t.hold();
    t.clipboard("c");
    t.tap(0x33);
    t.text("4");
    t.open(b, [{ text: "2" }]);
    expect(a.out).toEqual(["1"]);
    expect(b.out).toEqual(["2", "[c]", "+33", "-33", "4"]);
  });

  it("presses held modifiers again, and no other key", () => {
    const t = new Typist();
    const b = screen();
    t.open(screen(), []);
    t.key(0xffe3, true);
    t.key(0x61, true);
    t.hold();
    t.open(b, [{ key: 0x63, modifiers: [0xffe3] }]);
    expect(b.out).toEqual(["+ffe3", "+63", "-63", "-ffe3", "+ffe3"]);
    t.key(0x61, false);
    expect(b.out).toHaveLength(5);
  });

  it("gives the clipboard again to every screen, until another text is copied over there", () => {
    const t = new Typist();
    const [a, b, c, d] = [screen(), screen(), screen(), screen()];
    t.open(a, []);
    t.clipboard("mine");
    t.hold();
    t.open(b, []);
    t.copied("mine"); // an echo
    t.text("1");
    t.hold();
    t.open(c, [{ text: "2" }]);
    t.copied("theirs");
    t.hold();
    t.open(d, []);
    expect([a.out, b.out, c.out, d.out]).toEqual([["[mine]"], ["[mine]", "1"], ["[mine]", "2"], []]);
  });

  it("gives up what waited too long", () => {
    const t = new Typist();
    const b = screen();
    t.hold();
    t.text("half of a pass");
    vi.advanceTimersByTime(10_001);
    t.hold();
    t.text("word");
    t.open(b, []);
    expect(b.out).toEqual([]);
    t.text("again");
    expect(b.out).toEqual(["again"]);
  });
});
