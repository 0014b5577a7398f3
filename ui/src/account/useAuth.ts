import { useCallback, useEffect, useState } from "preact/hooks";
import { getMe, login, logout, onUnauthenticated } from "../api/client";
import { ApiError, sentence } from "../api/errors";
import type { Me } from "../api/types";
import { Backoff } from "../lib/backoff";

export type Auth =
  | { state: "checking"; problem: string }
  | { state: "out"; problem: string }
  | { state: "in"; me: Me };

interface UseAuth {
  auth: Auth;
  /** Signs in with the code of a sign-in link. */
  signIn: (code: string) => Promise<void>;
  signOut: () => Promise<void>;
}

/** useAuth knows who is signed in. A sign-in link's code is taken out of the
 * address before anything else happens, so that it stays neither in the
 * history nor on the screen. */
export function useAuth(): UseAuth {
  const [auth, setAuth] = useState<Auth>({ state: "checking", problem: "" });

  const signIn = useCallback(async (code: string) => {
    setAuth({ state: "checking", problem: "" });
    try {
      setAuth({ state: "in", me: await login(code) });
    } catch (err) {
      // An old link in a browser that is signed in is no reason to sign out.
      const me = await getMe().catch(() => null);
      setAuth(me ? { state: "in", me } : { state: "out", problem: sentence(err) });
    }
  }, []);

  const signOut = useCallback(async () => {
    await logout();
    setAuth({ state: "out", problem: "" });
  }, []);

  useEffect(() => {
    onUnauthenticated(() => setAuth((a) => (a.state === "in" ? { state: "out", problem: "You were signed out." } : a)));
    const backoff = new Backoff();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const check = async (): Promise<void> => {
      try {
        setAuth({ state: "in", me: await getMe() });
      } catch (err) {
        if (err instanceof ApiError && err.temporary) {
          setAuth({ state: "checking", problem: sentence(err) });
          timer = setTimeout(() => void check(), backoff.next());
        } else {
          setAuth({ state: "out", problem: err instanceof ApiError && err.code === "unauthenticated" ? "" : sentence(err) });
        }
      }
    };
    const onLink = (): void => {
      const code = takeCode();
      if (code !== null) void signIn(code);
    };
    const code = takeCode();
    if (code === null) void check();
    else void signIn(code);
    addEventListener("hashchange", onLink);
    return () => {
      clearTimeout(timer);
      removeEventListener("hashchange", onLink);
    };
  }, [signIn]);

  return { auth, signIn, signOut };
}

function takeCode(): string | null {
  const code = codeOf(location.hash);
  if (code !== null) history.replaceState(history.state, "", location.pathname + location.search);
  return code;
}

/** codeOf finds the code in a sign-in link, in its fragment, or takes a bare
 * code as it is. */
export function codeOf(text: string): string | null {
  const t = text.trim();
  const link = /#(?:.*&)?login=([^&\s]{1,128})/.exec(t);
  if (link?.[1]) return decode(link[1]);
  return /^[A-Za-z0-9_-]{8,128}$/.test(t) ? t : null;
}

function decode(s: string): string | null {
  try {
    return decodeURIComponent(s);
  } catch {
    return null;
  }
}
