import { describe, expect, it, vi, afterEach, beforeEach } from "vitest";
import { cursorStyle } from "../src/viewer/cursor";
import { Gestures } from "../src/viewer/gestures";
import { Journal } from "../src/viewer/journal";
import { figuresOf, look, Pixels, Pulse, type Look } from "../src/viewer/measure";
import { fragment, only, renewed } from "../src/viewer/negotiate";
import { place } from "../src/viewer/pointer";

describe("place", () => {
  const box = { left: 100, top: 50, width: 800, height: 500 };
  it.each([
    [{ width: 1600, height: 1000 }, 100, 50, { x: 0, y: 0 }],
    [{ width: 1600, height: 1000 }, 500, 300, { x: 800, y: 500 }],
    [{ width: 1600, height: 1000 }, 899.9, 549.9, { x: 1599, y: 999 }],
    // Bars at the left and right: 500 of 800 are the picture.
    [{ width: 400, height: 400 }, 250, 50, { x: 0, y: 0 }],
    [{ width: 400, height: 400 }, 120, 300, { x: 0, y: 200 }],
    [{ width: 400, height: 400 }, 890, 300, { x: 399, y: 200 }],
    // Bars above and below.
    [{ width: 1600, height: 500 }, 500, 175, { x: 800, y: 0 }],
    [{ width: 1600, height: 500 }, 500, 60, { x: 800, y: 0 }],
    [{ width: 0, height: 0 }, 500, 300, { x: 0, y: 0 }],
  ])("on a screen of %j (%d, %d) is %j", (screen, x, y, want) => expect(place(x, y, box, screen)).toEqual(want));
});

describe("Journal", () => {
  it("leaves what nothing has confirmed, in its order", () => {
    const j = new Journal();
    j.add(1, { text: "a" }, 0);
    j.add(2, { text: "b" }, 10);
    j.add(4, { clipboard: "c" }, 20);
    j.add(4, { key: 5, modifiers: [] }, 20);
    j.applied(1);
    expect(j.left()).toEqual([{ text: "b" }, { clipboard: "c" }, { key: 5, modifiers: [] }]);
    j.applied(3); // a move in between
    expect(j.left()).toEqual([{ clipboard: "c" }, { key: 5, modifiers: [] }]);
    j.applied(4);
    expect(j.empty).toBe(true);
  });

  it("takes for delivered what a living path has had a second for", () => {
    const j = new Journal();
    j.add(1, { text: "a" }, 0);
    j.add(2, { text: "b" }, 900);
    j.heard(999);
    expect(j.left()).toHaveLength(2);
    j.heard(1000);
    expect(j.left()).toEqual([{ text: "b" }]);
  });
});

describe("Pixels", () => {
  it("measures whichever of message and picture comes first", () => {
    const p = new Pixels();
    expect(p.ms).toBe(null);
    p.input(1, 100);
    p.frame(9000, 1);
    p.shown(9000, 130);
    p.input(2, 200);
    p.shown(9100, 250);
    p.frame(9100, 2);
    p.input(3, 300);
    p.frame(9200, 3);
    p.shown(9200, 340);
    expect(p.ms).toBe(40);
    p.frame(9300, 3); // was counted
    p.shown(9300, 900);
    expect(p.ms).toBe(40);
  });
});

describe("Pulse", () => {
  const at = (ms: number, arrived: number, packets = 0, decoded = 0): Look => ({ at: ms, arrived, packets, decoded, bytes: 0, roundTripMs: null });

  it("is alive on a still screen while anything arrives", () => {
    const p = new Pulse();
    for (let t = 0; t < 10_000; t += 250) expect(p.take(at(t, t))).toBe("alive");
  });

  it("asks after a while of silence, and stalls after two seconds of it", () => {
    const p = new Pulse();
    const said = [0, 250, 500, 750, 1000, 1750, 2000].map((t) => p.take(at(t, 7)));
    expect(said).toEqual(["alive", "alive", "alive", "quiet", "quiet", "quiet", "stalled"]);
  });

  it("stalls when video arrives and none of it can be shown", () => {
    const p = new Pulse();
    const said: string[] = [];
    for (let t = 0; t <= 2000; t += 250) said.push(p.take(at(t, t, t, 3)));
    expect(said.at(-2)).toBe("alive");
    expect(said.at(-1)).toBe("stalled");
  });

  it("asks at once when it is in doubt, and waits for less", () => {
    const p = new Pulse();
    expect(p.take(at(0, 7))).toBe("alive");
    p.doubt();
    expect(p.take(at(10, 8))).toBe("quiet"); // it may be from before
    p.doubt();
    expect([260, 510, 709].map((t) => p.take(at(t, 8)))).toEqual(["quiet", "quiet", "quiet"]);
    expect(p.take(at(710, 8))).toBe("stalled");
  });

  it("is in doubt no more when something arrives", () => {
    const p = new Pulse();
    p.doubt();
    expect([0, 250, 500].map((t) => p.take(at(t, t < 500 ? 7 : 8)))).toEqual(["quiet", "quiet", "alive"]);
    expect(p.take(at(1000, 8))).toBe("alive");
    expect(p.take(at(1250, 8))).toBe("quiet");
  });

  it("judges nothing by a time in which nobody looked", () => {
    const p = new Pulse();
    p.take(at(0, 7));
    p.rest();
    expect(p.take(at(60_000, 7))).toBe("alive");
    expect(p.take(at(60_250, 7))).toBe("alive");
  });
});

describe("look", () => {
  it("reads a report, and two make rates", () => {
    const report = (n: number): Look =>
      look(
        [
          { type: "candidate-pair", nominated: true, bytesReceived: 10 * n, currentRoundTripTime: 0.02 },
          { type: "inbound-rtp", kind: "video", packetsReceived: n, bytesReceived: 1000 * n, framesDecoded: 30 * n },
          { type: "data-channel", messagesReceived: 1 },
          { type: "codec" },
        ],
        1000 * n,
      );
    expect(figuresOf(report(1), report(3))).toEqual({ roundTripMs: 20, framesPerSecond: 30, bitsPerSecond: 8000 });
    expect(figuresOf(report(1), report(1)).framesPerSecond).toBe(null);
    expect(report(2).arrived).toBeGreaterThan(report(1).arrived);
  });
});

describe("an answer's candidates", () => {
  const sdp = "v=0\r\na=candidate:1 1 udp 2130706431 192.0.2.1 8081 typ host\r\na=candidate:2 1 TCP 1671430143 192.0.2.1 8081 typ host tcptype passive\r\nm=x\r\n";
  it("are those of one protocol", () => {
    expect(only(sdp, "udp")).toBe("v=0\r\na=candidate:1 1 udp 2130706431 192.0.2.1 8081 typ host\r\nm=x\r\n");
    expect(only(sdp, "tcp")).toBe("v=0\r\na=candidate:2 1 TCP 1671430143 192.0.2.1 8081 typ host tcptype passive\r\nm=x\r\n");
  });

  it("of the page go as a fragment", () => {
    expect(renewed("v=0\r\na=ice-ufrag:old\r\na=ice-pwd:$$\r\na=x\r\na=ice-ufrag:old\r\n", "a=ice-lite\r\na=ice-ufrag:n$&w\r\na=ice-pwd:new\r\n")).toBe(
      "v=0\r\na=ice-ufrag:n$&w\r\na=ice-pwd:new\r\na=x\r\na=ice-ufrag:n$&w\r\n",
    );
    const f = fragment("v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:secret\r\n", [{ candidate: "candidate:1 1 udp 1 192.0.2.2 5 typ host", sdpMid: "0" }]);
    expect(f).toBe("a=ice-ufrag:abcd\r\na=ice-pwd:secret\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.2 5 typ host\r\n");
  });
});

describe("Gestures", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  function hand(): { g: Gestures; did: string[] } {
    const did: string[] = [];
    const g = new Gestures({
      move: (x, y) => did.push(`move ${x},${y}`),
      button: (b, down, x, y) => did.push(`${down ? "+" : "-"}${b} ${x},${y}`),
      scroll: (dx, dy, x, y) => did.push(`scroll ${dx},${dy} at ${x},${y}`),
    });
    return { g, did };
  }

  it("clicks by a tap, however unsteady", () => {
    const { g, did } = hand();
    g.take("pointerdown", 1, 10, 10);
    g.take("pointermove", 1, 13, 12);
    g.take("pointerup", 1, 13, 12);
    expect(did).toEqual(["move 10,10", "+1 10,10", "-1 10,10"]);
  });

  it("drags with one finger, from where it came down", () => {
    const { g, did } = hand();
    g.take("pointerdown", 1, 10, 10);
    g.take("pointermove", 1, 40, 10);
    g.take("pointerup", 1, 60, 10);
    expect(did).toEqual(["move 10,10", "+1 10,10", "move 40,10", "-1 60,10"]);
  });

  it("clicks right by a long press, once", () => {
    const { g, did } = hand();
    g.take("pointerdown", 1, 10, 10);
    vi.advanceTimersByTime(600);
    g.take("pointermove", 1, 90, 10);
    g.take("pointerup", 1, 90, 10);
    expect(did).toEqual(["move 10,10", "+3 10,10", "-3 10,10"]);
  });

  it("scrolls with two, without a click", () => {
    const { g, did } = hand();
    g.take("pointerdown", 1, 10, 100);
    g.take("pointerdown", 2, 30, 100);
    g.take("pointermove", 1, 10, 20);
    g.take("pointerup", 1, 10, 20);
    g.take("pointerup", 2, 30, 100);
    vi.advanceTimersByTime(1000);
    expect(did).toEqual(["scroll 0,120 at 20,100"]);
  });

  it("lets go of what it holds when the system takes the finger", () => {
    const { g, did } = hand();
    g.take("pointerdown", 1, 10, 10);
    g.take("pointercancel", 1, 10, 10);
    g.take("pointerdown", 2, 10, 10);
    g.take("pointermove", 2, 40, 10);
    g.take("pointercancel", 2, 40, 10);
    expect(did.at(-1)).toBe("-1 40,10");
    expect(did).toHaveLength(4);
  });
});

describe("cursorStyle", () => {
  it("is none without a pointer, and the usual one for a picture that browsers do not show", () => {
    expect(cursorStyle(null)).toBe("none");
    expect(cursorStyle({ hotX: 0, hotY: 0, width: 200, height: 200, rgba: new Uint8ClampedArray(160_000) })).toBe("default");
  });
});
