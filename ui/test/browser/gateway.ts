// The gateway played in the page itself: an RTCPeerConnection that answers the
// page's offer, with a canvas as the video. The signalling goes through the
// browser's network as it would to the server.
import type { Page } from "playwright-core";

/** What the page under test finds as window.gateway. */
interface InPage {
  answer(offer: string): Promise<string>;
  candidates(fragment: string): Promise<void>;
  restart(fragment: string): Promise<string | null>;
  say(words: object): void;
  bytes(data: number[]): void;
  close(): void;
  got: { channel: string; data: number[] | string }[];
}

declare global {
  interface Window {
    gateway: InPage;
  }
}

/** Gateway answers for one page. */
export class Gateway {
  /** Whether the server says that it has live video. */
  enabled = true;
  /** Whether its answers have addresses that can be reached. */
  reachable = true;
  readonly offers: { ticket: string; sdp: string }[] = [];
  readonly ended: string[] = [];
  patches = 0;
  restarts = 0;

  private constructor(private readonly page: Page) {}

  /** of has to come before the page's first navigation. */
  static async of(page: Page): Promise<Gateway> {
    const g = new Gateway(page);
    await page.addInitScript(inPage);
    await page.route(/\/api\/v1\/sessions\/\w+\/webrtc(\/\w+)?$/, async (route) => {
      const r = route.request();
      const path = new URL(r.url()).pathname;
      switch (r.method()) {
        case "GET":
          return route.fulfill({ json: { enabled: g.enabled, ice_servers: [] } });
        case "POST": {
          const sdp = r.postData() ?? "";
          g.offers.push({ ticket: r.headers()["anteroom-ticket"] ?? "", sdp });
          const answer = await page.evaluate((o) => window.gateway.answer(o), sdp);
          const body = g.reachable ? answer : answer.replace(/^a=candidate.*\r\n/gm, "");
          return route.fulfill({ status: 201, headers: { Location: `${path}/c${g.offers.length}`, "Content-Type": "application/sdp" }, body });
        }
        case "PATCH": {
          g.patches++;
          const body = await page.evaluate((f) => window.gateway.restart(f), r.postData() ?? "");
          if (body === null) return route.fulfill({ status: 204 });
          g.restarts++;
          return route.fulfill({ status: 200, body });
        }
        default: {
          g.ended.push(path);
          const input = await g.lastOrdered();
          return route.fulfill({ json: { input } });
        }
      }
    });
    return g;
  }

  /** got is what came on the channels so far. */
  got(): Promise<InPage["got"]> {
    return this.page.evaluate(() => window.gateway.got);
  }

  /** keys is the keysyms that went down, text included. */
  async typed(): Promise<string> {
    return (await this.got())
      .flatMap(({ data }) => {
        if (typeof data === "string") return [];
        if (data[0] === 0x79 && data[9] === 1) return [String.fromCodePoint(Buffer.from(data).readUInt32BE(5))];
        return data[0] === 0x74 ? [Buffer.from(data.slice(5)).toString()] : [];
      })
      .join("");
  }

  say(words: object): Promise<void> {
    return this.page.evaluate((w) => window.gateway.say(w), words);
  }

  bytes(data: number[]): Promise<void> {
    return this.page.evaluate((d) => window.gateway.bytes(d), data);
  }

  close(): Promise<void> {
    return this.page.evaluate(() => window.gateway.close());
  }

  private async lastOrdered(): Promise<number> {
    let last = 0;
    for (const { channel, data } of await this.got()) {
      if (channel === "input" && typeof data !== "string" && data.length >= 5 && data[0] !== 0x70) last = Buffer.from(data).readUInt32BE(1);
    }
    return last;
  }
}

function inPage(): void {
  let pc: RTCPeerConnection | null = null;
  let input: RTCDataChannel | null = null;
  const canvas = document.createElement("canvas");
  canvas.width = 640;
  canvas.height = 480;
  const ctx = canvas.getContext("2d");
  let n = 0;
  setInterval(() => {
    if (!ctx) return;
    ctx.fillStyle = n++ % 2 ? "#2b6152" : "#a3352a";
    ctx.fillRect(0, 0, 640, 480);
  }, 33);
  window.gateway = {
    got: [],
    async answer(offer) {
      const p = new RTCPeerConnection();
      pc = p;
      p.ondatachannel = ({ channel }) => {
        channel.binaryType = "arraybuffer";
        if (channel.label === "input") input = channel;
        channel.onmessage = (e: MessageEvent<ArrayBuffer | string>) => {
          window.gateway.got.push({ channel: channel.label, data: typeof e.data === "string" ? e.data : [...new Uint8Array(e.data)] });
        };
      };
      const [track] = canvas.captureStream(30).getVideoTracks();
      if (track) p.addTrack(track);
      await p.setRemoteDescription({ type: "offer", sdp: offer });
      await p.setLocalDescription();
      await new Promise<void>((done) => {
        const check = (): void => void (p.iceGatheringState === "complete" && done());
        p.onicegatheringstatechange = check;
        check();
      });
      return p.localDescription?.sdp ?? "";
    },
    candidates: () => Promise.resolve(),
    async restart(fragment) {
      const had = pc?.currentRemoteDescription?.sdp ?? "";
      const ufrag = /a=ice-ufrag:\S+/.exec(fragment)?.[0];
      const pwd = /a=ice-pwd:\S+/.exec(fragment)?.[0];
      if (!pc || !ufrag || !pwd || had === "" || had.includes(ufrag)) return null;
      await pc.setRemoteDescription({ type: "offer", sdp: had.replace(/a=ice-ufrag:\S+/g, ufrag).replace(/a=ice-pwd:\S+/g, pwd) });
      await pc.setLocalDescription();
      const own = pc.localDescription?.sdp ?? "";
      return `${/a=ice-ufrag:\S+/.exec(own)?.[0]}\r\n${/a=ice-pwd:\S+/.exec(own)?.[0]}\r\n`;
    },
    say: (words) => input?.send(JSON.stringify(words)),
    bytes: (data) => input?.send(new Uint8Array(data)),
    close: () => pc?.close(),
  };
}
