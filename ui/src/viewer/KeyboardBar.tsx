import type { JSX } from "preact";
import { useId, useRef, useState } from "preact/hooks";
import { keysBetween, KEY_BACKSPACE, KEY_ENTER, KEY_TAB } from "../lib/text";

interface Props {
  onKeys: (keysyms: readonly number[]) => void;
  disabled: boolean;
}

const MAX_CHARS = 4096;

/** KeyboardBar types into the remote browser what is typed or pasted into its
 * box: soft keyboards and input methods need a real text box, and one-time
 * codes want a place to be pasted. */
export function KeyboardBar({ onKeys, disabled }: Props): JSX.Element {
  const id = useId();
  const box = useRef<HTMLInputElement>(null);
  const sent = useRef("");
  const [hidden, setHidden] = useState(false);

  const sync = (): void => {
    const now = box.current?.value ?? "";
    onKeys(keysBetween(sent.current, now));
    sent.current = now;
  };
  const clear = (): void => {
    sent.current = "";
    if (box.current) box.current.value = "";
  };
  const onKeyDown = (e: KeyboardEvent): void => {
    // Nothing left here to delete, but there may be over there.
    if (!e.isComposing && e.key === "Backspace" && box.current?.value === "") onKeys([KEY_BACKSPACE]);
  };
  const press = (key: number): void => {
    sync();
    onKeys([key]);
    clear();
  };

  return (
    <form
      class="keyboard"
      data-testid="keyboard"
      // Not every soft keyboard tells which key was Enter; all of them submit.
      onSubmit={(e) => {
        e.preventDefault();
        press(KEY_ENTER);
      }}
    >
      <label class="keyboard-label" for={id}>
        Type or paste into the browser
      </label>
      <label class="check">
        <input type="checkbox" checked={hidden} onChange={(e) => setHidden(e.currentTarget.checked)} />
        Hide it
      </label>
      <div class="field">
        <input
          ref={box}
          id={id}
          type="text"
          // Not a password field: the person's own browser would offer to keep it.
          class={hidden ? "masked" : undefined}
          inputMode="text"
          enterkeyhint="enter"
          autocomplete="off"
          autocapitalize="none"
          autocorrect="off"
          spellcheck={false}
          maxLength={MAX_CHARS}
          disabled={disabled}
          data-testid="keyboard-input"
          onInput={(e) => {
            if (!e.isComposing) sync();
          }}
          onCompositionEnd={sync}
          onKeyDown={onKeyDown}
          onBlur={clear}
        />
      </div>
      <div class="keys">
        <KeyButton label="Tab" disabled={disabled} onPress={() => press(KEY_TAB)} />
        <KeyButton label="Backspace" disabled={disabled} onPress={() => press(KEY_BACKSPACE)} />
        <KeyButton label="Enter" disabled={disabled} onPress={() => press(KEY_ENTER)} />
      </div>
    </form>
  );
}

function KeyButton(p: { label: string; disabled: boolean; onPress: () => void }): JSX.Element {
  return (
    <button
      type="button"
      class="button small"
      disabled={p.disabled}
      data-testid={`key-${p.label.toLowerCase()}`}
      // Keeps the focus, and with it the soft keyboard, in the box.
      onPointerDown={(e) => e.preventDefault()}
      onClick={p.onPress}
    >
      {p.label}
    </button>
  );
}
