import { chromium, type Browser, type BrowserContext, type BrowserContextOptions, type Locator, type Page } from "playwright-core";
import { preview, type PreviewServer } from "vite";
import type { Session, SessionState } from "../../src/api/types";
import type { Seen } from "../../mock/world.ts";

const SHOWN_ANYWAY = /Failed to load resource|WebSocket connection|net::ERR_|Failed (when|while) connect/;

// Without it a page sees its own addresses as names that need multicast.
const PLAIN_ADDRESSES = "--disable-features=WebRtcHideLocalIpsWithMdns";

/** Stage is the built page, a browser, and the mock server behind it. */
export class Stage {
  /** What the page must never say: its errors, and violations of the policy. */
  readonly problems: string[] = [];
  private contexts: BrowserContext[] = [];

  private constructor(
    private readonly browser: Browser,
    private readonly server: PreviewServer,
    readonly base: string,
  ) {}

  static async open(): Promise<Stage> {
    const server = await preview({ mode: "mock", logLevel: "silent", preview: { port: 0, host: "127.0.0.1" } });
    const address = server.httpServer.address();
    if (address === null || typeof address === "string") throw new Error("the mock server has no port");
    const browser = await chromium.launch({ executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: ["--no-sandbox", PLAIN_ADDRESSES] });
    return new Stage(browser, server, `http://127.0.0.1:${address.port}`);
  }

  async close(): Promise<void> {
    await this.browser.close();
    await this.server.close();
  }

  async page(options: BrowserContextOptions = {}): Promise<Page> {
    const context = await this.browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    this.contexts.push(context);
    context.setDefaultTimeout(20_000);
    await context.addInitScript(() => {
      addEventListener("securitypolicyviolation", (e) => console.error(`policy: ${e.violatedDirective} at ${e.sourceFile}:${e.lineNumber}`));
    });
    const page = await context.newPage();
    page.on("pageerror", (e) => this.problems.push(String(e.stack)));
    page.on("console", (m) => {
      if (m.type() === "error" && !SHOWN_ANYWAY.test(m.text())) this.problems.push(m.text());
    });
    return page;
  }

  /** clear closes all pages and starts the mock's world anew. */
  async clear(mode: "auto" | "manual" = "auto"): Promise<void> {
    for (const c of this.contexts.splice(0)) await c.close();
    this.problems.length = 0;
    await this.mock("reset", { mode });
  }

  async mock<T>(path: string, body: object = {}): Promise<T> {
    const res = await fetch(`${this.base}/mock/${path}`, { method: "POST", body: JSON.stringify(body) });
    return (res.status === 204 ? undefined : await res.json()) as T;
  }

  seen(): Promise<Seen> {
    return this.mock<Seen>("seen");
  }

  session(until: SessionState, provider = "claude"): Promise<Session> {
    return this.mock<Session>("session", { provider, until, ago: 10_000 });
  }

  move(id: string, state: SessionState): Promise<void> {
    return this.mock("move", { id, state });
  }
}

export const live = (page: Page): Locator => page.locator("[data-testid=viewer-status][data-phase=live]");

/** drawn says whether the viewer shows a picture at this moment. */
export function drawn(page: Page): Promise<boolean> {
  return page.evaluate(() =>
    [...document.querySelectorAll<HTMLCanvasElement>("[data-testid=viewer] canvas")].some((c) => {
      const probe = new OffscreenCanvas(1, 1).getContext("2d");
      if (!probe || c.width === 0) return false;
      probe.drawImage(c, 0, 0, 1, 1);
      return (probe.getImageData(0, 0, 1, 1).data[3] ?? 0) > 0;
    }),
  );
}
