import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";

interface Props {
  title: string;
  /** The word on the button that goes ahead. */
  confirm: string;
  busy: boolean;
  error?: string;
  testid: string;
  onConfirm: () => void;
  onClose: () => void;
  children: ComponentChildren;
}

/** ConfirmDialog asks before something that cannot be undone. It is modal
 * while it is mounted; Escape and Keep close it. */
export function ConfirmDialog(p: Props): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null);
  const title = useId();
  useEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog ref={ref} class="dialog" aria-labelledby={title} data-testid={p.testid} onClose={p.onClose}>
      <h2 id={title}>{p.title}</h2>
      <div class="dialog-body">{p.children}</div>
      {p.error && (
        <p class="error" role="alert">
          {p.error}
        </p>
      )}
      <div class="actions end">
        <button type="button" class="button" onClick={p.onClose} autofocus>
          Keep
        </button>
        <button type="button" class="button danger" disabled={p.busy} data-testid={`${p.testid}-confirm`} onClick={p.onConfirm}>
          {p.busy ? "One moment…" : p.confirm}
        </button>
      </div>
    </dialog>
  );
}
