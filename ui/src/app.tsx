import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { AccountMenu } from "./account/AccountMenu";
import { SignIn } from "./account/SignIn";
import { useAuth } from "./account/useAuth";
import { Activity } from "./activity/Activity";
import { listProviders } from "./api/client";
import type { Me, Provider } from "./api/types";
import { Myself } from "./api/useMe";
import { Providers } from "./api/useProviders";
import { Home } from "./home/Home";
import { Backoff } from "./lib/backoff";
import { followLink, routeOf, usePath, type Route } from "./lib/router";
import { Busy } from "./parts/Busy";
import { Icon, Mark, type IconName } from "./parts/Icon";
import { SessionView } from "./session/SessionView";
import { TerminalView } from "./terminal/TerminalView";
import { Ways } from "./ways/Ways";

export function App(): JSX.Element {
  const { auth, signIn, signOut } = useAuth();
  if (auth.state === "out") return <SignIn problem={auth.problem} onCode={(code) => void signIn(code)} />;
  if (auth.state === "checking") {
    return (
      <main class="door">
        <Mark />
        <Busy label={auth.problem || "One moment…"} />
      </main>
    );
  }
  return <SignedIn me={auth.me} onSignOut={signOut} />;
}

function SignedIn({ me, onSignOut }: { me: Me; onSignOut: () => Promise<void> }): JSX.Element {
  const route = routeOf(usePath());
  const providers = useAllProviders();
  return (
    <Myself.Provider value={me}>
      <Providers.Provider value={providers ?? []}>
        <Shell route={route} me={me} onSignOut={onSignOut}>
          {providers === null ? <Busy label="One moment…" /> : <View route={route} me={me} />}
        </Shell>
      </Providers.Provider>
    </Myself.Provider>
  );
}

function View({ route, me }: { route: Route; me: Me }): JSX.Element {
  switch (route.view) {
    case "home":
      return <Home admin={me.admin} />;
    case "session":
      return <SessionView key={route.id} id={route.id} />;
    case "terminal":
      return me.connect ? <Nothing /> : <TerminalView />;
    case "activity":
      return <Activity />;
    case "ways":
      return me.admin ? <Ways /> : <Nothing />;
    case "missing":
      return <Nothing />;
  }
}

function Nothing(): JSX.Element {
  return (
    <section class="page narrow">
      <h1>There is nothing here</h1>
      <a class="button" href="/" onClick={followLink}>
        Back to connections
      </a>
    </section>
  );
}

const NAV: readonly { href: string; view: Route["view"]; label: string; icon: IconName }[] = [
  { href: "/", view: "home", label: "Connections", icon: "plug" },
  { href: "/terminal", view: "terminal", label: "Terminal", icon: "terminal" },
  { href: "/activity", view: "activity", label: "Activity", icon: "activity" },
];

interface ShellProps {
  route: Route;
  me: Me;
  onSignOut: () => Promise<void>;
  children: ComponentChildren;
}

function Shell({ route, me, onSignOut, children }: ShellProps): JSX.Element {
  return (
    <div class="shell" data-view={route.view}>
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <header class="top">
        <a class="brand" href="/" onClick={followLink}>
          <Mark />
          <span>Anteroom</span>
        </a>
        <nav class="nav" aria-label="Main">
          {NAV.filter((n) => !me.connect || n.view !== "terminal").map((n) => (
            <a key={n.href} href={n.href} onClick={followLink} aria-current={route.view === n.view ? "page" : undefined}>
              <Icon name={n.icon} />
              <span>{n.label}</span>
            </a>
          ))}
        </nav>
        <AccountMenu me={me} onSignOut={onSignOut} />
      </header>
      <main id="main" class="main" tabIndex={-1}>
        {children}
      </main>
    </div>
  );
}

function useAllProviders(): Provider[] | null {
  const [providers, setProviders] = useState<Provider[] | null>(null);
  useEffect(() => {
    const abort = new AbortController();
    const backoff = new Backoff();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const load = async (): Promise<void> => {
      try {
        setProviders(await listProviders(abort.signal));
      } catch {
        if (!abort.signal.aborted) timer = setTimeout(() => void load(), backoff.next());
      }
    };
    void load();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, []);
  return providers;
}
