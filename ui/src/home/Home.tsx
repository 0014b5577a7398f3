import type { JSX } from "preact";
import { useMe } from "../api/useMe";
import { useOverview } from "../api/useOverview";
import { useProviders } from "../api/useProviders";
import { useNow, useTitle } from "../lib/hooks";
import { followLink } from "../lib/router";
import { Busy } from "../parts/Busy";
import { isFinal } from "../session/model";
import { useConnect } from "../session/useConnect";
import { WayOut } from "../ways/WayOut";
import { ProviderCard } from "./ProviderCard";

export function Home({ admin }: { admin: boolean }): JSX.Element {
  useTitle("");
  const providers = useProviders();
  const { connect: forThisComputer } = useMe();
  const { sessions, credentials, online, refresh } = useOverview();
  const { connect, busy, error } = useConnect();
  const now = useNow(10_000);
  const connected = credentials?.some((c) => c.active) ?? false;
  return (
    <section class="page">
      <div class="page-head">
        <h1>Connections</h1>
        <p class="lead">
          Sign in to a command-line tool here, in a browser machine that is destroyed afterwards. The credentials arrive on{" "}
          {forThisComputer ? (
            "the computer on which anteroom connect runs"
          ) : (
            <a href="/terminal" onClick={followLink}>
              your own machine
            </a>
          )}
          .
        </p>
      </div>
      {!online && (
        <p class="warn" role="status">
          The server cannot be reached. Trying again…
        </p>
      )}
      {error && (
        <p class="error" role="alert">
          {error}
        </p>
      )}
      {sessions === null || credentials === null ? (
        <Busy label="Looking at your connections…" />
      ) : (
        <ul class="cards">
          {providers.map((p) => (
            <ProviderCard
              key={p.name}
              provider={p}
              credential={credentials.find((c) => c.provider === p.name && c.active) ?? null}
              running={sessions.find((s) => s.provider === p.name && !isFinal(s.state)) ?? null}
              now={now}
              busy={busy}
              onConnect={() => void connect(p.name)}
              onChanged={refresh}
            />
          ))}
        </ul>
      )}
      <WayOut admin={admin} />
      {connected && (
        <p class="hint">
          Each sign-in is your own account with the vendor's own tool. Tools renew their sign-in on your machine by themselves.
        </p>
      )}
    </section>
  );
}
