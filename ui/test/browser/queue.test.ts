import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { Stage } from "./harness";

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.open();
});
afterAll(() => stage.close());
beforeEach(() => stage.clear());
afterEach(() => expect(stage.problems).toEqual([]));

it("says how many are before one, also after a reload, until it is one's turn", async () => {
  await stage.clear("manual");
  const { id } = await stage.session("requested");
  const page = await stage.page();
  const lead = page.locator("[data-testid=session-state][data-state=requested]");
  await page.goto(`${stage.base}/sessions/${id}`);
  await lead.waitFor();
  expect(await page.getByText("Waiting for a free place…").count()).toBe(0);
  for (const words of ["2 people are before you.", "1 person is before you.", "You are next:"]) {
    await stage.mock("progress", { id, message: `${words} …` });
    await page.locator("[data-testid=session-state]", { hasText: words }).waitFor();
    await page.getByText("Waiting for a free place…").waitFor();
  }
  await page.reload();
  await page.locator("[data-testid=session-state]", { hasText: "You are next:" }).waitFor();
  await stage.move(id, "starting");
  await page.locator("[data-testid=session-state][data-state=starting]").waitFor();
  expect(await page.getByText("Waiting for a free place…").count()).toBe(0);
  expect(await page.getByText("You are next:").count()).toBe(0);
});

it("says in a sentence that the queue is full", async () => {
  await stage.mock("full");
  const page = await stage.page();
  await page.goto(stage.base);
  await page.getByTestId("connect-claude").click();
  await page.getByText("All places are taken").waitFor();
  expect(new URL(page.url()).pathname).toBe("/");
});
