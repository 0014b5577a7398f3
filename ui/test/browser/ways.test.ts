import type { Locator, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import type { Session } from "../../src/api/types";
import { Stage } from "./harness";

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.open();
});
afterAll(() => stage.close());
beforeEach(() => stage.clear("manual"));
afterEach(() => expect(stage.problems).toEqual([]));

const PORT = "dc.decodo.com";
const row = (page: Page, n: number, state: string): Locator => page.locator(`[data-testid="port-${PORT}:${n}"][data-state=${state}]`);

async function manage(page: Page, n: number): Promise<void> {
  await page.goto(`${stage.base}/ways`);
  await page.getByTestId(`manage-${PORT}:${n}`).click();
  await page.getByTestId("port-dialog").waitFor();
}

async function change(page: Page, what: string, fill: Record<string, string> = {}): Promise<void> {
  await page.getByTestId(`port-${what}`).locator("summary").click();
  for (const [field, value] of Object.entries(fill)) await page.getByTestId(`port-${what}-${field}`).fill(value);
  await page.getByTestId(`port-${what}-go`).click();
}

const mainButtons = (page: Page): Promise<(string | null)[]> =>
  page.locator(".outcome .button.primary").evaluateAll((all) => all.map((b) => b.getAttribute("data-testid")));

it("shows where a session leaves from, and trouble with its way beside what is to be done", async () => {
  const { id } = await stage.session("starting");
  const page = await stage.page();
  await page.goto(`${stage.base}/sessions/${id}`);
  await page.locator("[data-testid=step-starting][data-status=current]").waitFor();
  expect(await page.getByTestId("exit-address").count()).toBe(0);
  await stage.move(id, "waiting");
  await page.getByText("Leaves from 203.0.113.7").waitFor();
  await stage.mock("progress", { id, message: "The code to type in is ABCD." });
  await stage.mock("progress", { id, message: "Your way out to the internet does not answer at the moment; it is tried again." });
  await page.getByTestId("session-way").getByText("does not answer").waitFor();
  await page.getByText("The code to type in is ABCD.").waitFor();
  await stage.move(id, "failed");
  await page.getByText("Left from 203.0.113.7").waitFor();
  expect(await page.getByTestId("session-way").textContent()).toBe("");
});

it.each([
  ["no_upstream_port", "No internet address of your own is free"],
  ["upstream_port_shut", "out of use until whoever runs this server"],
  ["exit_address_changed", "Its exit address was 203.0.113.7 and is 198.51.100.4."],
  ["provider_blocked", "Refused was auth.openai.com."],
])("says why a sign-in failed: %s", async (reason, words) => {
  const { id } = await stage.mock<Session>("session", { provider: "codex", until: "waiting", end: "failed", reason });
  const page = await stage.page();
  await page.goto(`${stage.base}/sessions/${id}`);
  await page.locator(`[data-testid=session-reason][data-reason=${reason}]`).waitFor();
  await page.getByText(words).waitFor();
  // Trying again cannot help until an administrator has acted: they are led there.
  expect(await mainButtons(page)).toEqual(["to-ways"]);
  await page.getByTestId("to-ways").click();
  await page.getByTestId("ways-table").waitFor();

  await stage.mock("ways", { admin: false });
  await page.goto(`${stage.base}/sessions/${id}`);
  await page.getByTestId("session-reason").waitFor();
  expect(await mainButtons(page)).toEqual(["to-connections"]);
  expect(await page.getByTestId("to-ways").count()).toBe(0);
  await page.getByTestId("try-again").click(); // once that has been done
  await page.locator("[data-testid=session-state][data-state=requested]").waitFor();
});

it("offers to try again first where that can help", async () => {
  const { id } = await stage.mock<Session>("session", { provider: "codex", until: "waiting", end: "failed" });
  const page = await stage.page();
  await page.goto(`${stage.base}/sessions/${id}`);
  await page.getByTestId("session-reason").waitFor();
  expect(await mainButtons(page)).toEqual(["try-again"]);
});

it.each<[string, object, RegExp]>([
  ["a port", {}, /Your own, dc\.decodo\.com:10008\. It leaves from 203\.0\.113\.7, last seen 1 hour ago\./],
  ["no port yet", { total: 0 }, /You are given one of your own/],
  ["a port in quarantine", { quarantine: "It looked odd" }, /out of use until whoever runs this server has looked at it\. It looked odd\./],
  ["one for all", { kind: "shared" }, /the one way out that all users of this server share, from 203\.0\.113\.200\. In use now\./],
  ["none", { kind: "direct" }, /straight from this server, without a proxy\. In use now\./],
])("says on the first page how one leaves: %s", async (_, way, want) => {
  await stage.mock("ways", way);
  if ("kind" in way) await stage.session("waiting", "gemini");
  const page = await stage.page();
  await page.goto(stage.base);
  expect(await page.getByTestId("way-out").innerText()).toMatch(want);
});

it("has all ways out for administrators only", async () => {
  const page = await stage.page();
  await page.goto(stage.base);
  await page.getByTestId("account").click();
  await page.getByTestId("ways-link").click();
  await page.getByTestId("ways-table").waitFor();
  expect(await page.getByTestId("ways-link").isVisible()).toBe(false);
  await stage.mock("ways", { admin: false });
  await page.reload();
  await page.getByRole("heading", { name: "There is nothing here" }).waitFor();
  await page.getByTestId("account").click();
  await page.getByTestId("sign-out").waitFor();
  expect(await page.getByTestId("ways-link").count()).toBe(0);
});

it("finds ports by state and by text, and warns when they run out", async () => {
  const page = await stage.page();
  await page.goto(`${stage.base}/ways`);
  const rows = page.getByTestId("ways-table").locator("tbody tr");
  await rows.first().waitFor();
  expect(await rows.count()).toBe(121);
  expect(await page.getByTestId("ways-shortage").count()).toBe(0);
  await page.getByTestId("ways-resting").click();
  expect(await rows.count()).toBe(3);
  await page.getByTestId("ways-all").click();
  await page.getByTestId("ways-find").fill("ada");
  await row(page, 10008, "assigned").waitFor();
  await page.getByTestId("ways-find").fill("nobody at all");
  await page.getByText("No port is like that.").waitFor();
  for (const [used, words] of [[96, "96 of 120 ports have users, and 20 are free."], [116, "none is free"]] as const) {
    await stage.mock("ways", { used });
    await page.reload();
    await page.getByTestId("ways-shortage").getByText(words).waitFor();
  }
});

it("looks at a port, and accepts the address that was seen", async () => {
  const page = await stage.page();
  await manage(page, 10005);
  await page.getByTestId("port-check").click();
  await page.getByTestId("port-report").getByText("It leaves from 198.51.100.4, which is not the address that was accepted, 203.0.113.4.").waitFor();
  expect(await page.getByTestId("port-pin-address").inputValue()).toBe("198.51.100.4");
  await page.getByTestId("port-pin-go").click();
  await page.getByTestId("port-said").getByText("198.51.100.4 is the accepted address now.").waitFor();
  await page.locator("[data-testid=port-state][data-state=assigned]").waitFor();
  await page.keyboard.press("Escape");
  await page.getByTestId("port-dialog").waitFor({ state: "detached" });
  expect(await page.evaluate(() => document.activeElement?.getAttribute("data-testid"))).toBe(`manage-${PORT}:10005`);
  await row(page, 10005, "assigned").getByText("198.51.100.4").waitFor();
});

it("says what a look did not see, and what is refused", async () => {
  const page = await stage.page();
  await manage(page, 10088);
  await page.getByTestId("port-check").click();
  await page.getByTestId("port-report").getByText("could not be seen").waitFor();
  expect(await page.getByTestId("port-pin").count()).toBe(0);
  await manage(page, 10003);
  await page.getByTestId("port-check").click();
  await page.getByTestId("port-report").getByText("auth.openai.com for Codex").waitFor();
});

it("gives, releases and quarantines a port", async () => {
  const page = await stage.page();
  await manage(page, 10110);
  await change(page, "assign", { user: "ada" });
  await page.getByTestId("port-said").getByText("It is ada's.").waitFor();
  await page.getByTestId("port-dialog-close").click();
  await row(page, 10110, "assigned").getByText("ada").waitFor();
  await row(page, 10008, "resting").waitFor();
  await manage(page, 10110);
  await change(page, "quarantine", { reason: "the vendor asked for it" });
  await page.getByTestId("port-state").getByText("the vendor asked for it.").waitFor();
  await page.getByTestId("port-release").locator("summary").click();
  await page.getByTestId("port-release-now").check();
  await page.getByTestId("port-release-go").click();
  await page.getByTestId("port-said").getByText("Nobody has it. It is free.").waitFor();
  await page.getByTestId("port-dialog-close").click();
  await row(page, 10110, "free").waitFor();
});

it("shows the server's own sentence when it says no", async () => {
  const page = await stage.page();
  await manage(page, 10003);
  await change(page, "assign", { user: "nobody" });
  await page.getByTestId("port-said").getByText("There is no user of that name.").waitFor();
  expect(await page.getByTestId("port-assign-user").inputValue()).toBe("nobody");
  await page.getByTestId("port-assign-user").fill("zoe");
  await page.getByTestId("port-assign-go").click();
  await page.getByTestId("port-said").getByText("Another user has that port. Release it first.").waitFor();
});

it("says so where all users share one way out", async () => {
  await stage.mock("ways", { kind: "shared" });
  const page = await stage.page();
  await page.goto(`${stage.base}/ways`);
  await page.getByTestId("ways-shared").getByText("All users of this server leave through one way out").waitFor();
  expect(await page.getByTestId("ways-table").count()).toBe(0);
});

it("keeps the list while the server is away", async () => {
  const page = await stage.page();
  await manage(page, 10008);
  await stage.mock("restart?ms=2000");
  await page.getByTestId("port-check").click();
  await page.getByTestId("port-dialog").getByText("The server cannot be reached.").waitFor();
  await page.getByTestId("port-dialog-close").click();
  await row(page, 10008, "assigned").waitFor();
});
