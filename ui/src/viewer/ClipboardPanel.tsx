import type { JSX } from "preact";
import { useLayoutEffect, useState } from "preact/hooks";
import { clip } from "../lib/text";
import { readClipboard, writeClipboard } from "./systemClipboard";

interface Props {
  /** What the browser machine's clipboard holds. */
  remote: { text: string; cut: boolean };
  onSend: (text: string) => void;
  disabled: boolean;
}

const TOO_LONG = "Only the first 256 KiB fit; the rest was left out.";

/** ClipboardPanel moves text by hand between the device and the browser
 * machine, for browsers that do not let a page use the clipboard. */
export function ClipboardPanel({ remote, onSend, disabled }: Props): JSX.Element {
  const [text, setText] = useState(remote.text);
  const [said, setSaid] = useState(remote.cut ? TOO_LONG : "");

  // A plain effect would come after the first painting, when the person may
  // have begun to type.
  useLayoutEffect(() => {
    if (remote.text === "") return;
    setText(remote.text);
    setSaid(remote.cut ? TOO_LONG : "Copied in the browser machine.");
  }, [remote]);

  const send = (): void => {
    const c = clip(text);
    onSend(c.text);
    // Ctrl+V on the screen pastes what the device holds: the same from now on.
    void writeClipboard(c.text);
    setSaid(c.cut ? TOO_LONG : "Sent. Paste it over there with Ctrl+V or the menu.");
  };
  const take = async (): Promise<void> => {
    setText(remote.text);
    const ok = await writeClipboard(remote.text);
    setSaid(ok ? "Copied to this device's clipboard." : "This device did not allow it: select the text and copy it.");
  };
  const fill = async (): Promise<void> => {
    const own = await readClipboard();
    if (own === null) setSaid("This device did not allow it: paste into the box instead.");
    else setText(own);
  };

  return (
    <div class="clipboard" data-testid="clipboard">
      <label class="field">
        <span>Clipboard</span>
        <textarea
          rows={3}
          value={text}
          spellcheck={false}
          autocomplete="off"
          data-testid="clipboard-text"
          onInput={(e) => setText(e.currentTarget.value)}
        />
      </label>
      <div class="keys">
        <button type="button" class="button small" disabled={disabled || text === ""} data-testid="clipboard-send" onClick={send}>
          Send to browser
        </button>
        <button type="button" class="button small" disabled={remote.text === ""} data-testid="clipboard-copy" onClick={() => void take()}>
          Copy from browser
        </button>
        <button type="button" class="button small" onClick={() => void fill()}>
          Take from this device
        </button>
        <p class="hint" role="status">
          {said}
        </p>
      </div>
    </div>
  );
}
