import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { sentence } from "../api/errors";
import type { Me } from "../api/types";
import { followLink } from "../lib/router";
import { Icon } from "../parts/Icon";

interface Props {
  me: Me;
  onSignOut: () => Promise<void>;
}

export function AccountMenu({ me, onSignOut }: Props): JSX.Element {
  const [error, setError] = useState("");
  const ref = useRef<HTMLDetailsElement>(null);

  // A menu closes when one looks elsewhere.
  useEffect(() => {
    const close = (e: Event): void => {
      const el = ref.current;
      if (!el?.open) return;
      if (e instanceof KeyboardEvent) {
        if (e.key !== "Escape") return;
        el.querySelector("summary")?.focus();
      } else if (e.target instanceof Node && el.contains(e.target)) return;
      el.open = false;
    };
    document.addEventListener("pointerdown", close);
    document.addEventListener("keydown", close);
    return () => {
      document.removeEventListener("pointerdown", close);
      document.removeEventListener("keydown", close);
    };
  }, []);

  const signOut = async (): Promise<void> => {
    try {
      await onSignOut();
    } catch (err) {
      setError(sentence(err));
    }
  };
  return (
    <details class="menu" ref={ref}>
      <summary aria-label={`Account of ${me.name}`} data-testid="account">
        <Icon name="user" />
        <span class="menu-name">{me.name}</span>
      </summary>
      <div class="menu-body">
        <p>
          Signed in as <strong>{me.name}</strong>
        </p>
        {me.admin && (
          <a
            class="button"
            href="/ways"
            data-testid="ways-link"
            onClick={(e) => {
              followLink(e);
              if (ref.current) ref.current.open = false;
            }}
          >
            <Icon name="globe" />
            Ways out
          </a>
        )}
        <button type="button" class="button" data-testid="sign-out" onClick={() => void signOut()}>
          <Icon name="out" />
          Sign out
        </button>
        {error && (
          <p class="error" role="alert">
            {error}
          </p>
        )}
        <p class="hint">Anteroom {me.version}</p>
      </div>
    </details>
  );
}
