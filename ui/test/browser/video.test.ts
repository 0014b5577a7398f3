import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from "vitest";
import { Gateway } from "./gateway";
import { live, Stage } from "./harness";

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.open();
});
afterAll(() => stage.close());
beforeEach(() => stage.clear("manual"));
afterEach(() => expect(stage.problems).toEqual([]));

const until = (check: () => Promise<void>): Promise<void> => vi.waitFor(check, { timeout: 20_000, interval: 50 });
const on = (page: Page, transport: string): Promise<void> => page.locator(`.viewer[data-transport=${transport}]`).waitFor();

async function open(options: Parameters<Stage["page"]>[0] = {}, before: (g: Gateway) => void = () => undefined): Promise<{ page: Page; gateway: Gateway }> {
  const { id } = await stage.session("waiting");
  const page = await stage.page(options);
  const gateway = await Gateway.of(page);
  before(gateway);
  await page.goto(`${stage.base}/sessions/${id}`);
  await live(page).waitFor();
  return { page, gateway };
}

const box = async (page: Page): Promise<{ x: number; y: number; width: number; height: number }> => {
  const b = await page.locator("[data-testid=viewer] .stage-live video").boundingBox();
  if (!b) throw new Error("no video on the stage");
  return b;
};

it("shows the video, with a ticket of its own, and no noVNC", async () => {
  const { page, gateway } = await open();
  await on(page, "udp");
  await until(async () => expect(await page.evaluate(() => document.querySelector("video")?.videoWidth)).toBe(640));
  expect(gateway.offers).toHaveLength(1);
  expect(gateway.offers[0]?.ticket).not.toBe("");
  expect(gateway.offers[0]?.sdp).toMatch(/m=video[\s\S]*a=recvonly[\s\S]*m=application/);
  await page.getByText("Direct video (UDP)").waitFor();
  expect((await stage.seen()).viewers).toBe(0);
  await until(async () => expect(await page.evaluate(() => document.activeElement?.getAttribute("data-testid"))).toBe("viewer-keys"));
  await until(async () => expect((await gateway.got()).some((g) => typeof g.data === "string" && g.data.includes('"resize"'))).toBe(true));
  // The last request of a page comes by the real network, past the played gateway.
  await page.goto("about:blank");
  await until(async () => expect((await stage.seen()).videosEnded + gateway.ended.length).toBe(1));
});

it("sends keys, buttons and the wheel in order, and moves beside them", async () => {
  const { page, gateway } = await open();
  await on(page, "udp");
  await gateway.say({ size: { width: 640, height: 480 } });
  const b = await box(page);
  await page.mouse.move(b.x + b.width / 2, b.y + b.height / 2);
  await page.mouse.down();
  await page.mouse.up();
  await page.mouse.wheel(0, 100);
  await page.keyboard.press("a");
  await page.keyboard.insertText("語");
  await until(async () => expect(await gateway.typed()).toBe("a語"));
  const got = (await gateway.got()).filter((g) => typeof g.data !== "string");
  const kinds = got.map((g) => `${g.channel} ${String.fromCharCode(Number(g.data[0]))}`);
  expect(kinds).toEqual(["moves m", "input d", "input d", "input w", "input y", "input y", "input t"]);
  const data = got.map((g) => g.data as number[]);
  expect(data.map((d) => d[4])).toEqual([1, 2, 3, 4, 5, 6, 7]); // each its own number
  const middle = [1, 64, 0, 240];
  expect(data[1]?.slice(5)).toEqual([...middle, 1, 1]);
  expect(data[2]?.slice(5)).toEqual([...middle, 1, 0]);
  expect(data[3]?.slice(9)).toEqual([0, 0, 0, 120]);
  expect(data[4]?.slice(5)).toEqual([0, 0, 0, 0x61, 1]);
});

it("draws the pointer itself", async () => {
  const { page, gateway } = await open();
  await on(page, "udp");
  const cursor = (): Promise<string> => page.evaluate(() => getComputedStyle(document.querySelector(".stage-live") as Element).cursor);
  await gateway.bytes([0x63, 0, 1, 0, 0, 0, 2, 0, 1, 255, 0, 0, 255, 0, 0, 0, 0]);
  await until(async () => expect(await cursor()).toMatch(/^url\("data:image\/png;base64,.*"\) 1 0, default$/));
  await gateway.bytes([0x63, 0, 0, 0, 0, 0, 0, 0, 0]);
  await until(async () => expect(await cursor()).toBe("none"));
});

it("says who is in control, and takes it", async () => {
  const { page, gateway } = await open();
  await on(page, "udp");
  await gateway.say({ role: "watch" });
  await page.getByTestId("viewer-watching").getByText("You are watching.").waitFor();
  await page.getByTestId("viewer-keys").focus();
  await page.keyboard.type("lost");
  await page.getByTestId("take-control").click();
  await until(async () => expect((await gateway.got()).some((g) => g.data === '{"control":true}')).toBe(true));
  await gateway.say({ role: "control" });
  await page.getByTestId("viewer-watching").waitFor({ state: "detached" });
  await page.keyboard.type("mine");
  await until(async () => expect(await gateway.typed()).toBe("mine"));
});

it("shows its figures, from key to picture too", async () => {
  const { page, gateway } = await open();
  await on(page, "udp");
  await page.getByTestId("tool-figures").click();
  await page.getByTestId("viewer-keys").focus();
  await page.keyboard.press("a");
  await until(async () => expect(await gateway.typed()).toBe("a"));
  const id = (await gateway.got()).map((g) => g.data).find((d) => d[0] === 0x79)?.[4];
  // As the gateway would: the picture after the key is the first with it.
  await page.evaluate(
    (input) =>
      new Promise<void>((done) => {
        document.querySelector("video")?.requestVideoFrameCallback((_, m) => {
          window.gateway.say({ frame: { rtp: m.rtpTimestamp, input } });
          done();
        });
      }),
    id,
  );
  await until(async () => expect(await page.getByTestId("figure-latency").textContent()).toMatch(/^\d+ ms$/));
  await until(async () => expect(Number(await page.getByTestId("figure-rate").textContent())).toBeGreaterThan(5));
  expect(await page.getByTestId("figure-transport").textContent()).toBe("Video over UDP");
  await until(async () => expect(await page.getByTestId("figure-size").textContent()).toBe("640 × 480"));
  await until(async () => expect(await page.getByTestId("figure-round-trip").textContent()).toMatch(/ ms$/));
});

it("moves the clipboard in both directions", async () => {
  const { page, gateway } = await open({ permissions: ["clipboard-read", "clipboard-write"] });
  await on(page, "udp");
  await gateway.bytes([0x70, ...Buffer.from("from over there é")]);
  await until(async () => expect(await page.evaluate(() => navigator.clipboard.readText())).toBe("from over there é"));
  await page.evaluate(() => navigator.clipboard.writeText("by Ctrl+V"));
  await page.keyboard.press("Control+v");
  await until(async () => {
    const data = (await gateway.got()).map((g) => g.data).filter((d): d is number[] => typeof d !== "string");
    const pasted = data.findIndex((d) => d[0] === 0x70 && Buffer.from(d.slice(1)).toString() === "by Ctrl+V");
    expect(pasted).toBeGreaterThanOrEqual(0);
    expect(data.findIndex((d) => d[0] === 0x79 && d[8] === 0x76)).toBeGreaterThan(pasted);
  });
});

it("is on noVNC within three seconds when no video gets through, and goes up when it does", async () => {
  const { id } = await stage.session("waiting");
  const page = await stage.page();
  const gateway = await Gateway.of(page);
  gateway.reachable = false;
  await page.goto(`${stage.base}/sessions/${id}`);
  await page.locator(".viewer").waitFor();
  const began = Date.now();
  await on(page, "vnc");
  expect(Date.now() - began).toBeLessThan(3000);
  await page.getByText("video is blocked, trying again").waitFor();
  await page.keyboard.type("ab");
  await until(async () => expect((await stage.seen()).keys).toEqual([0x61, 0x62]));
  gateway.reachable = true;
  await on(page, "udp");
  await page.keyboard.type("cd");
  await until(async () => expect(await gateway.typed()).toBe("cd"));
  const told = (await gateway.got()).map((g) => String(g.data)).filter((d) => d.includes('"stats":{"switch"'));
  expect(told.map((d) => (JSON.parse(d) as { stats: { switch: object } }).stats.switch)).toEqual([
    { to: "vnc", reason: "unreached" },
    { to: "udp", reason: "better" },
  ]);
  expect(told[0]).toContain('"transport":"vnc","first_frame_ms":');
  expect((await stage.seen()).keys).toEqual([0x61, 0x62]);
  expect(await page.locator(".stage-still canvas").count()).toBe(0);
});

it("goes straight to noVNC where the server has no live video", async () => {
  const { page, gateway } = await open({}, (g) => (g.enabled = false));
  await on(page, "vnc");
  await page.getByText("video is off on this server").waitFor();
  expect(gateway.offers).toHaveLength(0);
});

it("neither loses nor repeats a character when the video breaks off while typing", async () => {
  const { page, gateway } = await open();
  await on(page, "udp");
  const text = "The quick brown fox jumps over the lazy dog 0123456789";
  const typing = page.keyboard.type(text, { delay: 15 });
  await until(async () => expect((await gateway.typed()).length).toBeGreaterThan(10));
  await gateway.close();
  await typing;
  await on(page, "vnc");
  await until(async () => {
    const after = String.fromCodePoint(...(await stage.seen()).keys);
    expect((await gateway.typed()) + after).toBe(text);
  });
  expect(await page.evaluate(() => document.activeElement?.getAttribute("data-testid"))).toBe("viewer-keys");
});

it("leaves the focus and the text in the keyboard's bar through a switch", async () => {
  const { page, gateway } = await open({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
  await on(page, "udp");
  await page.getByTestId("keyboard-input").focus();
  await page.keyboard.type("one ");
  await until(async () => expect(await gateway.typed()).toBe("one "));
  gateway.reachable = false;
  await gateway.close();
  await page.keyboard.type("two");
  await on(page, "vnc");
  await page.keyboard.type(" 3");
  await until(async () => expect(String.fromCodePoint(...(await stage.seen()).keys)).toBe("two 3"));
  expect(await page.getByTestId("keyboard-input").inputValue()).toBe("one two 3");
  expect(await page.evaluate(() => document.activeElement?.getAttribute("data-testid"))).toBe("keyboard-input");
});

it("moves down two seconds after the last sign of life", async () => {
  const { page, gateway } = await open();
  await on(page, "udp");
  gateway.reachable = false;
  const took = await page.evaluate(async () => {
    const began = performance.now();
    // What arrives from now on does not show: as when the network is cut.
    const real = RTCPeerConnection.prototype.getStats;
    let frozen: Promise<RTCStatsReport> | null = null;
    RTCPeerConnection.prototype.getStats = function (this: RTCPeerConnection) {
      return (frozen ??= real.call(this));
    };
    while (document.querySelector(".viewer")?.getAttribute("data-transport") !== "vnc") await new Promise(requestAnimationFrame);
    return performance.now() - began;
  });
  expect(took).toBeGreaterThan(1900);
  await page.getByText("video stalled, trying again").waitFor();
  expect(await page.evaluate(() => document.activeElement?.getAttribute("data-testid"))).toBe("viewer-keys");
});

it.each([true, false])("takes what an input method composes, once (video: %s)", async (video) => {
  const { page, gateway } = await open({}, (g) => (g.enabled = video));
  await on(page, video ? "udp" : "vnc");
  await page.getByTestId("viewer").click();
  const cdp = await page.context().newCDPSession(page);
  const compose = (text: string): Promise<unknown> => cdp.send("Input.imeSetComposition", { text, selectionStart: text.length, selectionEnd: text.length });
  for (const text of ["に", "にほ", "にほん", "日本"]) await compose(text);
  expect(await page.getByTestId("viewer-keys").evaluate((b) => getComputedStyle(b).opacity)).toBe("1");
  await cdp.send("Input.insertText", { text: "日本" });
  await page.keyboard.press("x");
  await until(async () => {
    const typed = video ? await gateway.typed() : String.fromCodePoint(...(await stage.seen()).keys.map((k) => k & 0xffffff));
    expect(typed).toBe("日本x");
  });
  expect(await page.getByTestId("viewer-keys").inputValue()).toBe("");
  expect(await page.getByTestId("viewer-keys").evaluate((b) => getComputedStyle(b).opacity)).toBe("0");
});

it("finds another path when the network changes, on the same connection", async () => {
  const { page, gateway } = await open();
  await on(page, "udp");
  for (const n of [1, 2]) {
    await page.evaluate(() => window.dispatchEvent(new Event("online")));
    await until(async () => expect(gateway.restarts).toBe(n));
    await page.keyboard.press("a");
    await until(async () => expect(await gateway.typed()).toBe("a".repeat(n)));
  }
  await page.waitForTimeout(2500); // a picture that stalled would have been left by now
  expect(gateway.offers).toHaveLength(1);
  await on(page, "udp");
});

it("takes fingers: a tap, a drag, two that scroll", async () => {
  const { page, gateway } = await open({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
  await on(page, "udp");
  await gateway.say({ size: { width: 640, height: 480 } });
  await page.locator("[data-testid=viewer] .stage-live video").tap();
  const kinds = async (): Promise<string[]> =>
    (await gateway.got()).flatMap((g) => (typeof g.data === "string" ? [] : [String.fromCharCode(Number(g.data[0]))]));
  await until(async () => expect((await kinds()).filter((k) => k === "d")).toHaveLength(2));
  const b = await box(page);
  const cdp = await page.context().newCDPSession(page);
  const touch = (type: "touchStart" | "touchMove" | "touchEnd", ...points: [number, number][]): Promise<unknown> =>
    cdp.send("Input.dispatchTouchEvent", { type, touchPoints: points.map(([x, y], id) => ({ x: b.x + x, y: b.y + y, id })) });
  await touch("touchStart", [100, 200], [160, 200]);
  await touch("touchMove", [100, 150], [160, 150]);
  await touch("touchMove", [100, 100], [160, 100]);
  await touch("touchEnd");
  await until(async () => expect(await kinds()).toContain("w"));
  expect((await kinds()).filter((k) => k === "d")).toHaveLength(2);
});
