import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { AxeResults } from "axe-core";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Gateway } from "./gateway";
import { live, Stage } from "./harness";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.open();
});
afterAll(() => stage.close());
beforeEach(() => stage.clear("manual"));

/** faults is what the automatic accessibility rules find, colours included. */
async function faults(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  const results = await page.evaluate(() => {
    const { axe } = window as unknown as { axe: { run: (o: object) => Promise<AxeResults> } };
    return axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] });
  });
  return results.violations.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.target.join(" ")} (${n.failureSummary ?? ""})`));
}

const SCREENS = [
  ["light", { colorScheme: "light" as const }],
  ["dark", { colorScheme: "dark" as const }],
  ["phone", { colorScheme: "light" as const, viewport: { width: 360, height: 640 }, hasTouch: true, isMobile: true }],
] as const;

describe.each(SCREENS)("%s", (_, options) => {
  const views: Record<string, (page: Page) => Promise<void>> = {
    async "sign-in"(page) {
      await stage.mock("sign-out");
      await page.goto(stage.base);
      await page.getByTestId("sign-in").waitFor();
    },
    async connections(page) {
      await stage.session("completed", "codex");
      await stage.session("waiting", "gemini");
      await page.goto(stage.base);
      await page.getByTestId("connect-claude").waitFor();
    },
    async dialog(page) {
      await stage.session("completed", "codex");
      await page.goto(stage.base);
      await page.getByTestId("delete-codex").click();
      await page.getByTestId("delete-dialog").waitFor();
    },
    async session(page) {
      await page.goto(`${stage.base}/sessions/${(await stage.session("waiting")).id}`);
      await live(page).waitFor();
      await page.getByTestId("tool-clipboard").click();
      await page.getByTestId("log").locator("summary").click();
    },
    async figures(page) {
      await page.goto(`${stage.base}/sessions/${(await stage.session("waiting")).id}`);
      await live(page).waitFor();
      await page.getByTestId("tool-figures").click();
      await page.getByTestId("figures").waitFor();
    },
    async watching(page) {
      const gateway = await Gateway.of(page);
      await page.goto(`${stage.base}/sessions/${(await stage.session("waiting")).id}`);
      await live(page).waitFor();
      await gateway.say({ role: "watch" });
      await page.getByTestId("viewer-watching").waitFor();
    },
    async failed(page) {
      const { id } = await stage.session("waiting");
      await stage.move(id, "failed");
      await page.goto(`${stage.base}/sessions/${id}`);
      await page.getByTestId("try-again").waitFor();
    },
    async completed(page) {
      await page.goto(`${stage.base}/sessions/${(await stage.session("completed")).id}`);
      await page.getByTestId("destroyed").waitFor();
    },
    async terminal(page) {
      await page.goto(`${stage.base}/terminal`);
      await page.locator("[data-testid=terminal-status][data-phase=live]").waitFor();
    },
    async activity(page) {
      await stage.session("completed", "codex");
      await page.goto(`${stage.base}/activity`);
      await page.getByTestId("activity").waitFor();
    },
    async trouble(page) {
      const { id } = await stage.session("waiting");
      await stage.mock("progress", { id, message: "Your way out to the internet does not answer." });
      await page.goto(`${stage.base}/sessions/${id}`);
      await page.getByTestId("session-way").getByText("does not answer").waitFor();
    },
    async quarantine(page) {
      await stage.mock("ways", { quarantine: "It looked odd" });
      await page.goto(stage.base);
      await page.getByTestId("way-out").waitFor();
      await page.getByTestId("account").click();
    },
    async ways(page) {
      await stage.mock("ways", { used: 96 });
      await page.goto(`${stage.base}/ways`);
      await page.getByTestId("ways-table").waitFor();
    },
    async "one way out for all"(page) {
      await stage.mock("ways", { kind: "shared" });
      await page.goto(`${stage.base}/ways`);
      await page.getByTestId("ways-shared").waitFor();
    },
    async port(page) {
      await page.goto(`${stage.base}/ways`);
      await page.getByTestId("manage-dc.decodo.com:10005").click();
      await page.getByTestId("port-check").click();
      await page.getByTestId("port-pin-go").waitFor();
      await page.getByTestId("port-release").locator("summary").click();
    },
  };
  it.each(Object.entries(views))("%s has no accessibility fault", async (_, go) => {
    const page = await stage.page({ ...options, reducedMotion: "reduce" }); // colours stand still
    await go(page);
    expect(await faults(page)).toEqual([]);
  });
});
