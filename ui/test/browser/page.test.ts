import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from "vitest";
import { expectedSize } from "../../src/viewer/size";
import { drawn, live, Stage } from "./harness";

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.open();
});
afterAll(() => stage.close());
beforeEach(() => stage.clear());
afterEach(() => expect(stage.problems).toEqual([]));

const until = (check: () => Promise<void>): Promise<void> => vi.waitFor(check, { timeout: 20_000, interval: 50 });

it("signs in by link, and takes the code out of the address", async () => {
  await stage.mock("sign-out");
  const page = await stage.page();
  await page.goto(`${stage.base}/activity#login=demo-code-1234`);
  await page.getByRole("heading", { name: "Activity" }).waitFor();
  expect(page.url()).toBe(`${stage.base}/activity`);
  await page.getByTestId("account").click();
  await page.getByTestId("sign-out").click();
  await page.getByTestId("sign-in").waitFor();
  await page.getByTestId("sign-in-link").fill(`${stage.base}/#login=used-up-code`);
  await page.getByTestId("sign-in-link").press("Enter");
  await page.getByText("was used already").waitFor();
});

it("goes from Connect to a terminal on one's own machine", async () => {
  const page = await stage.page();
  await page.goto(stage.base);
  await page.getByTestId("connect-claude").click();
  await live(page).waitFor();
  expect(new URL(page.url()).pathname).toMatch(/^\/sessions\/\w+$/);
  await until(async () => expect(await drawn(page)).toBe(true));
  await page.keyboard.type("ada");
  await page.keyboard.press("Enter");
  await page.locator("[data-testid=session-state][data-state=completed]").waitFor();
  await page.getByTestId("destroyed").waitFor();
  for (const step of ["starting", "waiting", "capturing", "storing", "delivering", "completed"]) {
    expect(await page.getByTestId(`step-${step}`).getAttribute("data-status")).toBe("done");
  }
  expect((await stage.seen()).keys).toEqual([0x61, 0x64, 0x61, 0xff0d]);
  await page.getByTestId("open-terminal").click();
  await page.locator("[data-testid=terminal-status][data-phase=live]").waitFor();
  await page.keyboard.type("claude auth status\n");
  await page.locator("[data-testid=terminal] .xterm-rows", { hasText: "Signed in as ada@example.org" }).waitFor();
  await page.keyboard.type("exit\n");
  await page.getByTestId("terminal-restart").click();
  await page.locator("[data-testid=terminal-status][data-phase=live]").waitFor();
});

it("waits for a machine that the server has not attached to yet", async () => {
  await stage.mock("not-ready", { tickets: 2 });
  const page = await stage.page();
  const tickets: number[] = [];
  page.on("response", (r) => {
    if (r.url().endsWith("/tickets")) tickets.push(r.status());
  });
  await page.goto(`${stage.base}/terminal`);
  await page.locator("[data-testid=terminal-status][data-phase=live]").waitFor();
  expect(tickets).toEqual([503, 503, 201]);
  expect(await page.getByRole("alert").count()).toBe(0); // the person is not bothered with it
});

it("stands where it stood after a reload, in every state", async () => {
  await stage.clear("manual");
  const { id } = await stage.session("requested");
  const page = await stage.page();
  await page.goto(`${stage.base}/sessions/${id}`);
  for (const state of ["starting", "waiting", "capturing", "storing", "delivering", "completed"] as const) {
    await stage.move(id, state);
    const here = page.locator(`[data-testid=session-state][data-state=${state}]`);
    await here.waitFor();
    await page.reload();
    await here.waitFor();
    expect(await page.getByTestId(`step-${state}`).getAttribute("data-status")).toBe(state === "completed" ? "done" : "current");
  }
});

it("comes back after a restart of the server and keeps the picture meanwhile", async () => {
  await stage.clear("manual");
  const { id } = await stage.session("waiting");
  const page = await stage.page();
  await page.goto(`${stage.base}/sessions/${id}`);
  await live(page).waitFor();
  await until(async () => expect(await drawn(page)).toBe(true));
  await page.evaluate(() => {
    const w = window as unknown as { blank: number };
    w.blank = 0;
    const look = (): void => {
      const shown = [...document.querySelectorAll<HTMLCanvasElement>("[data-testid=viewer] canvas")].some((c) => {
        const probe = new OffscreenCanvas(1, 1).getContext("2d");
        if (!probe || c.width === 0) return false;
        probe.drawImage(c, 0, 0, 1, 1);
        return (probe.getImageData(0, 0, 1, 1).data[3] ?? 0) > 0;
      });
      if (!shown) w.blank++;
      requestAnimationFrame(look);
    };
    look();
  });
  await stage.mock("restart?ms=3000");
  await page.getByTestId("viewer-problem").getByText("The server cannot be reached").waitFor();
  await live(page).waitFor();
  expect((await stage.seen()).viewers).toBe(2);
  expect(await page.evaluate(() => (window as unknown as { blank: number }).blank)).toBe(0);
  await stage.move(id, "capturing");
  await page.locator("[data-testid=session-state][data-state=capturing]").waitFor();
});

it("says why a sign-in failed, and tries again", async () => {
  await stage.clear("manual");
  const { id } = await stage.session("waiting");
  const page = await stage.page();
  await page.goto(`${stage.base}/sessions/${id}`);
  await stage.move(id, "failed");
  await page.getByTestId("session-reason").waitFor();
  expect(await page.getByTestId("session-reason").getAttribute("data-reason")).toBe("login_exited");
  expect(await page.getByTestId("step-waiting").getAttribute("data-status")).toBe("failed");
  await page.getByTestId("try-again").click();
  await page.locator("[data-testid=session-state][data-state=requested]").waitFor();
  expect(page.url()).not.toContain(id);
  await page.getByTestId("cancel").click();
  await page.locator("[data-testid=session-state][data-state=cancelled]").waitFor();
});

it("types and pastes any script through its text box", async () => {
  await stage.clear("manual");
  const { id } = await stage.session("waiting");
  const page = await stage.page({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
  await page.goto(`${stage.base}/sessions/${id}`);
  await live(page).waitFor();
  await page.getByTestId("keyboard-input").fill("é語");
  await page.getByTestId("keyboard-input").fill("éя");
  await page.getByTestId("key-tab").click();
  await page.getByTestId("keyboard-input").press("Backspace");
  await page.getByTestId("keyboard-input").press("Enter");
  const want = [0xe9, 0x01008a9e, 0xff08, 0x0100044f, 0xff09, 0xff08, 0xff0d];
  await until(async () => expect((await stage.seen()).keys).toEqual(want));
  await page.getByTestId("viewer").tap();
  await until(async () => expect((await stage.seen()).clicks).toBe(1));
});

it("gives the remote screen a size that Chromium can have, also when the phone turns", async () => {
  await stage.clear("manual");
  const { id } = await stage.session("waiting");
  const page = await stage.page({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
  await page.goto(`${stage.base}/sessions/${id}`);
  await live(page).waitFor();
  await until(async () => expect((await stage.seen()).size[0]).toBe(500));
  await page.setViewportSize({ width: 844, height: 390 });
  await until(async () => {
    const [w, h] = (await stage.seen()).size;
    expect(w).toBeGreaterThan(800);
    expect(h).toBe(400);
  });
});

it.each([
  { width: 1280, height: 800 },
  { width: 1600, height: 1000 },
  { width: 390, height: 844 },
  { width: 844, height: 390 },
])("foresees the screen's size in a window of %j", async (viewport) => {
  await stage.clear("manual");
  const { id } = await stage.session("waiting");
  const page = await stage.page({ viewport, hasTouch: viewport.width < 900, isMobile: viewport.width < 900 });
  await page.goto(`${stage.base}/sessions/${id}`);
  await live(page).waitFor();
  const foreseen = expectedSize({ w: viewport.width, h: viewport.height });
  await until(async () => {
    const [w, h] = (await stage.seen()).size;
    expect(Math.abs(w - foreseen.w)).toBeLessThanOrEqual(24);
    expect(Math.abs(h - foreseen.h)).toBeLessThanOrEqual(24);
  });
});

it("moves the clipboard in both directions", async () => {
  await stage.clear("manual");
  const { id } = await stage.session("waiting");
  const page = await stage.page({ permissions: ["clipboard-read", "clipboard-write"] });
  await page.goto(`${stage.base}/sessions/${id}`);
  await live(page).waitFor();
  await stage.mock("clipboard", { text: "from over there" });
  await until(async () => expect(await page.evaluate(() => navigator.clipboard.readText())).toBe("from over there"));
  await page.getByTestId("tool-clipboard").click();
  await page.getByTestId("clipboard-text").fill("by hand");
  await page.getByTestId("clipboard-send").click();
  await until(async () => expect((await stage.seen()).clipboard).toBe("by hand"));
  expect(await page.evaluate(() => navigator.clipboard.readText())).toBe("by hand"); // for Ctrl+V
  await page.evaluate(() => navigator.clipboard.writeText("by Ctrl+V"));
  await page.getByTestId("viewer").click({ position: { x: 100, y: 150 } });
  await page.keyboard.press("Control+v");
  await until(async () => {
    const seen = await stage.seen();
    expect(seen.clipboard).toBe("by Ctrl+V");
    expect(seen.keys.filter((k) => k === 0x76)).toHaveLength(1);
  });
});

it("leaves alone what is typed into the clipboard's box as soon as that is there", async () => {
  await stage.clear("manual");
  const { id } = await stage.session("waiting");
  const page = await stage.page({ permissions: ["clipboard-read", "clipboard-write"] });
  await page.goto(`${stage.base}/sessions/${id}`);
  await live(page).waitFor();
  await stage.mock("clipboard", { text: "from over there" });
  await until(async () => expect(await page.evaluate(() => navigator.clipboard.readText())).toBe("from over there"));
  await page.evaluate(async () => {
    const box = (): HTMLTextAreaElement | null => document.querySelector("[data-testid=clipboard-text]");
    document.querySelector<HTMLElement>("[data-testid=tool-clipboard]")?.click();
    while (!box()) await Promise.resolve();
    const b = box() as HTMLTextAreaElement;
    b.value = "by hand";
    b.dispatchEvent(new Event("input", { bubbles: true }));
  });
  await page.getByTestId("clipboard-send").click();
  await until(async () => expect((await stage.seen()).clipboard).toBe("by hand"));
});

it("asks before it deletes, and delivers again", async () => {
  await stage.clear("manual");
  await stage.session("completed", "codex");
  const page = await stage.page();
  await page.goto(stage.base);
  const card = page.getByTestId("credential-codex");
  expect(await card.getAttribute("data-state")).toBe("connected");
  await page.getByTestId("deliver-codex").click();
  await card.getByText("Delivered to your machine.").waitFor();
  await page.getByTestId("delete-codex").click();
  await page.getByText("codex logout").waitFor();
  await page.keyboard.press("Escape");
  await page.getByTestId("delete-dialog").waitFor({ state: "detached" });
  await page.getByTestId("delete-codex").click();
  await page.getByTestId("delete-dialog-confirm").click();
  await page.locator("[data-testid=credential-codex][data-state=none]").waitFor();
});

it.each([
  ["/", "[data-testid=credential-codex][data-state=connected]", "[data-testid=credential-claude][data-state=running]"],
  ["/activity", "[data-testid=activity] [data-state=completed]", "[data-testid=activity] [data-state=waiting]"],
])("%s asks for its lists once and for no history, and again when something happens", async (path, loaded, changed) => {
  await stage.clear("manual");
  await stage.session("completed", "codex");
  const page = await stage.page();
  const asked: string[] = [];
  page.on("request", (r) => asked.push(r.url().slice(stage.base.length)));
  const lists = (): string[] => asked.filter((a) => /\/(events|sessions|credentials)\b/.test(a)).sort();
  await page.goto(`${stage.base}${path}`);
  await page.locator(loaded).waitFor();
  const once = ["/api/v1/credentials", "/api/v1/events?from=now", "/api/v1/sessions?limit=50"];
  expect(lists()).toEqual(once);
  await stage.session("waiting", "claude");
  await page.locator(changed).waitFor();
  expect(lists().filter((a) => a.includes("events"))).toHaveLength(1);
});

it("offers nothing under anteroom connect that there is not", async () => {
  await stage.clear("manual");
  await stage.mock("connect");
  const { id } = await stage.session("waiting", "codex");
  const page = await stage.page();
  await page.goto(`${stage.base}/sessions/${id}`);
  await live(page).waitFor();
  expect(await page.getByRole("link", { name: "Terminal" }).count()).toBe(0);
  for (const [one, end] of [
    [id, "completed"],
    [(await stage.session("waiting")).id, "failed"],
  ] as const) {
    await page.goto(`${stage.base}/sessions/${one}`);
    await stage.move(one, end);
    await page.getByTestId("go-back").waitFor();
    expect(await page.locator(".outcome button, .outcome a").count()).toBe(0);
  }
  await page.goto(`${stage.base}/terminal`);
  await page.getByRole("heading", { name: "There is nothing here" }).waitFor();
  await stage.session("completed", "codex");
  await page.goto(stage.base);
  await page.getByTestId("delete-codex").waitFor();
  expect(await page.getByTestId("deliver-codex").count()).toBe(0);
  expect(await page.locator("a[href='/terminal']").count()).toBe(0);
});

it("lets the keyboard leave the screen", async () => {
  await stage.clear("manual");
  const { id } = await stage.session("waiting");
  const page = await stage.page();
  await page.goto(`${stage.base}/sessions/${id}`);
  await live(page).waitFor();
  await until(async () => expect(await page.evaluate(() => document.activeElement?.getAttribute("data-testid"))).toBe("viewer-keys"));
  await page.keyboard.press("Shift+Escape");
  await page.keyboard.press("Tab");
  expect(await page.evaluate(() => document.activeElement?.getAttribute("data-testid"))).toBe("tool-keyboard");
});
