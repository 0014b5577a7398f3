import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { useTitle } from "../lib/hooks";
import { Mark } from "../parts/Icon";
import { codeOf } from "./useAuth";

interface Props {
  problem: string;
  onCode: (code: string) => void;
}

export function SignIn({ problem, onCode }: Props): JSX.Element {
  useTitle("Sign in");
  const [text, setText] = useState("");
  const [wrong, setWrong] = useState("");
  const submit = (e: Event): void => {
    e.preventDefault();
    const code = codeOf(text);
    if (code) onCode(code);
    else setWrong("That is neither a sign-in link nor its code.");
  };
  return (
    <main class="door" data-testid="sign-in">
      <Mark />
      <h1>Anteroom</h1>
      <p class="lead">Open the sign-in link that the server printed, or paste it here.</p>
      {problem && (
        <p class="error" role="alert">
          {problem}
        </p>
      )}
      <form onSubmit={submit}>
        <label class="field">
          <span>Sign-in link</span>
          <input
            type="text"
            value={text}
            autocomplete="off"
            autocapitalize="none"
            spellcheck={false}
            placeholder="http://127.0.0.1:8080/#login=…"
            aria-invalid={wrong !== ""}
            data-testid="sign-in-link"
            onInput={(e) => {
              setText(e.currentTarget.value);
              setWrong("");
            }}
          />
        </label>
        {wrong && (
          <p class="error" role="alert">
            {wrong}
          </p>
        )}
        <button type="submit" class="button primary">
          Sign in
        </button>
      </form>
      <p class="hint">
        A link is good once. Whoever runs this server can make a new one.
      </p>
    </main>
  );
}
