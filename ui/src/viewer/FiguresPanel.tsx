import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { useLatest } from "../lib/hooks";
import type { Transport, Figures } from "./screen";

interface Props {
  read: () => Promise<Figures | null>;
  transport: Transport | null;
  /** The transport and why it is that one, in words. */
  says: string;
}

const EVERY_MS = 1000;
const NAMES: Record<Transport, string> = { udp: "Video over UDP", tcp: "Video over TCP", vnc: "VNC" };

/** FiguresPanel says how the connection to the screen is doing. */
export function FiguresPanel({ read, transport, says }: Props): JSX.Element {
  const [f, setF] = useState<Figures | null>(null);
  const latest = useLatest(read);
  useEffect(() => {
    let over = false;
    const look = async (): Promise<void> => {
      const now = await latest.current().catch(() => null);
      if (!over) setF(now);
    };
    void look();
    const timer = setInterval(() => void look(), EVERY_MS);
    return () => {
      over = true;
      clearInterval(timer);
    };
  }, [latest]);

  const rows: [name: string, label: string, value: string][] = [
    ["transport", "How", transport ? NAMES[transport] : "–"],
    ["round-trip", "There and back", ms(f?.roundTripMs)],
    ["latency", "From key to picture", ms(f?.inputToPixelMs)],
    ["rate", "Pictures a second", whole(f?.framesPerSecond)],
    ["bits", "Data", bits(f?.bitsPerSecond)],
    ["size", "Size", f && f.width > 0 ? `${f.width} × ${f.height}` : "–"],
  ];
  return (
    <section class="figures" data-testid="figures" aria-label="Connection to the screen">
      <dl>
        {rows.map(([name, label, value]) => (
          <div key={name}>
            <dt>{label}</dt>
            <dd data-testid={`figure-${name}`}>{value}</dd>
          </div>
        ))}
      </dl>
      {says && <p class="hint">{says}</p>}
    </section>
  );
}

const whole = (n: number | null | undefined): string => (n === null || n === undefined ? "–" : String(Math.round(n)));
const ms = (n: number | null | undefined): string => (n === null || n === undefined ? "–" : `${Math.max(1, Math.round(n))} ms`);

function bits(n: number | null | undefined): string {
  if (n === null || n === undefined) return "–";
  return n >= 999_500 ? `${(n / 1e6).toFixed(1)} Mbit/s` : `${Math.round(n / 1000)} kbit/s`;
}
