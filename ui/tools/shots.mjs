// Takes pictures of every state of the page against the mock server, under the
// real content security policy, and fails on any violation or page error.
// Needs a build; writes to shots/. CHROMIUM names another browser.
import { spawn } from "node:child_process";
import { mkdirSync, rmSync } from "node:fs";
import { chromium } from "playwright-core";

// node tools/shots.mjs [part of a state's name] [screen]
const BASE = "http://127.0.0.1:4173";
const [, , only, onlyScreen] = process.argv;
if (!only && !onlyScreen) rmSync("shots", { recursive: true, force: true });
mkdirSync("shots", { recursive: true });

const server = spawn("node_modules/.bin/vite", ["preview", "--mode", "mock", "--strictPort"], { stdio: ["ignore", "pipe", "inherit"] });
await new Promise((resolve, reject) => {
  server.stdout.on("data", (d) => String(d).includes("4173") && resolve());
  server.on("exit", () => reject(new Error("the mock server did not start")));
});

const mock = async (path, body = {}) => {
  const res = await fetch(`${BASE}/mock/${path}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  return res.status === 204 ? null : res.json();
};
const problems = [];
const SCREENS = [
  { name: "light", options: { viewport: { width: 1280, height: 800 }, colorScheme: "light" } },
  { name: "dark", options: { viewport: { width: 1280, height: 800 }, colorScheme: "dark" } },
  {
    name: "landscape",
    options: { viewport: { width: 844, height: 390 }, hasTouch: true, isMobile: true, colorScheme: "dark" },
  },
  {
    name: "phone",
    options: { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true, colorScheme: "light" },
  },
  { name: "narrow-dark", options: { viewport: { width: 360, height: 640 }, hasTouch: true, isMobile: true, colorScheme: "dark" } },
];

const STATES = {
  async "sign-in"(page) {
    await mock("sign-out");
    await page.goto(`${BASE}/#login=used-code-99`);
    await page.getByTestId("sign-in").waitFor();
    await page.getByRole("alert").waitFor();
    await mock("reset");
  },
  async home(page) {
    await mock("reset", { mode: "manual" });
    await mock("session", { provider: "codex", until: "completed", ago: 3_600_000 });
    await mock("session", { provider: "gemini", until: "waiting" });
    await page.goto(BASE);
    await page.getByTestId("connect-claude").waitFor();
  },
  async "home-empty"(page) {
    await mock("reset", { mode: "manual" });
    await page.goto(BASE);
    await page.getByTestId("connect-claude").waitFor();
    await page.getByTestId("account").click();
  },
  async "home-way-quarantined"(page) {
    await mock("reset", { mode: "manual" });
    await mock("ways", { quarantine: "Its exit address was 203.0.113.7 and is 198.51.100.4." });
    await page.goto(BASE);
    await page.getByTestId("way-out").scrollIntoViewIfNeeded();
  },
  async "way-trouble"(page) {
    const id = await live(page, "claude");
    await mock("progress", { id, message: "The sign-in page is open; sign in as you would on your own computer. The code to type in is ABCD-1234." });
    await mock("progress", { id, message: "Your way out to the internet does not answer at the moment; it is tried again." });
    await page.getByText("does not answer").waitFor();
  },
  async "way-changed"(page) {
    await mock("reset", { mode: "manual" });
    const s = await mock("session", { provider: "claude", until: "waiting", end: "failed", reason: "exit_address_changed" });
    await page.goto(`${BASE}/sessions/${s.id}`);
    await page.getByTestId("try-again").waitFor();
  },
  async ways(page) {
    await mock("reset");
    await page.goto(`${BASE}/ways`);
    await page.getByTestId("ways-table").waitFor();
  },
  async "ways-short"(page) {
    await mock("reset");
    await mock("ways", { used: 108 });
    await page.goto(`${BASE}/ways`);
    await page.getByTestId("ways-quarantined").click();
  },
  async "ways-shared"(page) {
    await mock("reset");
    await mock("ways", { kind: "shared" });
    await page.goto(`${BASE}/ways`);
    await page.getByTestId("ways-shared").waitFor();
  },
  async "ways-check"(page) {
    await mock("reset");
    await page.goto(`${BASE}/ways`);
    await page.getByTestId("manage-dc.decodo.com:10005").click();
    await page.getByTestId("port-check").click();
    await page.getByText("198.51.100.4, which").waitFor();
  },
  async "ways-error"(page) {
    await mock("reset");
    await page.goto(`${BASE}/ways`);
    await page.getByTestId("manage-dc.decodo.com:10003").click();
    await page.getByTestId("port-assign").locator("summary").click();
    await page.getByTestId("port-assign-user").fill("nobody");
    await page.getByTestId("port-assign-go").click();
    await page.getByText("no user of that name").waitFor();
  },
  async delete(page) {
    await mock("reset", { mode: "manual" });
    await mock("session", { provider: "codex", until: "completed", ago: 90_000_000 });
    await page.goto(BASE);
    await page.getByTestId("delete-codex").click();
  },
  async starting(page) {
    await mock("reset", { mode: "manual" });
    const s = await mock("session", { provider: "claude", until: "starting", ago: 800 });
    await page.goto(`${BASE}/sessions/${s.id}`);
    await page.locator('[data-testid=step-starting][data-status=current]').waitFor();
  },
  async waiting(page) {
    await live(page, "claude");
  },
  async keyboard(page) {
    await live(page, "claude");
    if (!(await page.getByTestId("keyboard").isVisible())) await page.getByTestId("tool-keyboard").click();
    await page.getByTestId("keyboard-input").fill("ada@example");
  },
  async clipboard(page) {
    await live(page, "claude");
    await page.getByTestId("tool-clipboard").click();
    await page.getByTestId("clipboard-text").fill("one-time code 481 516");
    await page.getByTestId("clipboard-send").click();
  },
  async figures(page) {
    await live(page, "claude");
    await page.getByTestId("tool-figures").click();
    await page.getByTestId("figures").waitFor();
  },
  async reconnecting(page) {
    await live(page, "claude");
    await mock("restart?ms=6000");
    await page.getByTestId("viewer-problem").waitFor();
    await page.waitForTimeout(900);
  },
  async delivering(page) {
    const id = await live(page, "claude");
    for (const state of ["capturing", "storing", "delivering"]) await mock("move", { id, state });
    await page.locator('[data-testid=step-delivering][data-status=current]').waitFor();
    await page.waitForTimeout(900);
  },
  async completed(page) {
    await mock("reset", { mode: "manual" });
    const s = await mock("session", { provider: "claude", until: "completed", ago: 51_000 });
    await page.goto(`${BASE}/sessions/${s.id}`);
    await page.getByTestId("destroyed").waitFor();
  },
  async failed(page) {
    await mock("reset", { mode: "manual" });
    const s = await mock("session", { provider: "claude", until: "waiting", end: "failed" });
    await page.goto(`${BASE}/sessions/${s.id}`);
    await page.getByTestId("try-again").waitFor();
    await page.getByTestId("log").locator("summary").click();
  },
  async terminal(page) {
    await mock("reset");
    await page.goto(`${BASE}/terminal`);
    await page.locator('[data-testid=terminal-status][data-phase=live]').waitFor();
    await page.locator(".xterm-helper-textarea").focus();
    await page.keyboard.type("claude auth status\ncolors\n");
    await page.locator(".xterm-rows", { hasText: "Signed in as ada" }).waitFor();
  },
  async activity(page) {
    await mock("reset", { mode: "manual" });
    await mock("session", { provider: "codex", until: "completed", ago: 200_000_000 });
    await mock("session", { provider: "claude", until: "waiting", end: "failed", ago: 7_000_000 });
    await mock("session", { provider: "claude", until: "waiting", end: "cancelled", ago: 5_000_000 });
    await mock("session", { provider: "gemini", until: "waiting", ago: 30_000 });
    await page.goto(`${BASE}/activity`);
    await page.getByTestId("activity").waitFor();
  },
};

async function live(page, provider) {
  await mock("reset", { mode: "manual" });
  const s = await mock("session", { provider, until: "waiting", ago: 20_000 });
  await page.goto(`${BASE}/sessions/${s.id}`);
  await page.locator('[data-testid=viewer-status][data-phase=live]').waitFor();
  await page.waitForTimeout(500);
  return s.id;
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  for (const screen of SCREENS) {
    if (onlyScreen && screen.name !== onlyScreen) continue;
    const context = await browser.newContext(screen.options);
    context.setDefaultTimeout(8000);
    await context.addInitScript(() => {
      addEventListener("securitypolicyviolation", (e) => console.error(`CSP ${e.violatedDirective} ${e.sourceFile}:${e.lineNumber} ${e.sample}`));
    });
    for (const [name, go] of Object.entries(STATES)) {
      if (only && !name.includes(only)) continue;
      const page = await context.newPage();
      page.on("pageerror", (e) => problems.push(`${screen.name} ${name}: ${e.stack}`));
      page.on("console", (m) => m.type() === "error" && !/Failed to load resource|WebSocket|ERR_|Failed when|Failed while/.test(m.text()) && problems.push(`${screen.name} ${name}: ${m.text()}`));
      try {
        await go(page);
        await page.waitForTimeout(150);
      } catch (e) {
        problems.push(`${screen.name} ${name}: ${e}`);
      }
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (wide > 0) problems.push(`${screen.name} ${name}: ${wide} px wider than the screen`);
      await page.screenshot({ path: `shots/${screen.name}-${name}.png` });
      if (screen.name === "phone") await page.screenshot({ path: `shots/${screen.name}-${name}-full.png`, fullPage: true });
      await page.close();
    }
    await context.close();
  }
} finally {
  await browser.close();
  server.kill();
}
if (problems.length > 0) {
  console.error(problems.join("\n"));
  process.exit(1);
}
console.log("all pictures taken; no policy violations, no errors");
