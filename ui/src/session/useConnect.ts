import { useCallback, useRef, useState } from "preact/hooks";
import { startSession } from "../api/client";
import { ApiError, sentence } from "../api/errors";
import { navigate } from "../lib/router";
import { expectedSize } from "../viewer/size";

interface Connect {
  /** Starts a sign-in and shows it; one at a time. */
  connect: (provider: string) => Promise<void>;
  /** The provider that is being started. */
  busy: string | null;
  error: string;
}

export function useConnect(): Connect {
  const [busy, setBusy] = useState<string | null>(null);
  const [error, setError] = useState("");
  const running = useRef(false);
  const connect = useCallback(async (provider: string) => {
    if (running.current) return;
    running.current = true;
    setBusy(provider);
    setError("");
    // Needed in a moment; fetched while the machine starts.
    void import("../viewer/rfb").catch(() => undefined);
    try {
      const session = await start(provider);
      navigate(`/sessions/${session.id}`);
    } catch (err) {
      setError(sentence(err));
    } finally {
      running.current = false;
      setBusy(null);
    }
  }, []);
  return { connect, busy, error };
}

// An answer that was lost on the way is asked for again with the same key, so
// that no second machine is started.
async function start(provider: string): ReturnType<typeof startSession> {
  const key = crypto.randomUUID();
  const { w: width, h: height } = expectedSize({ w: innerWidth, h: innerHeight });
  const size = { width, height };
  try {
    return await startSession(provider, key, size);
  } catch (err) {
    if (!(err instanceof ApiError) || err.code !== "network") throw err;
    return startSession(provider, key, size);
  }
}
