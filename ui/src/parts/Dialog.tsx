import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";

interface ModalProps {
  title: string;
  testid: string;
  /** It is long, and has a button of its own that closes it. */
  long?: boolean;
  onClose: () => void;
  children: ComponentChildren;
}

/** Modal is a dialog over the page, for as long as it is mounted; Escape closes
 * it, and the focus goes back to where it was. */
export function Modal(p: ModalProps): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null);
  const title = useId();
  useEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog ref={ref} class={p.long ? "dialog long" : "dialog"} aria-labelledby={title} data-testid={p.testid} onClose={p.onClose}>
      <div class="dialog-head">
        <h2 id={title}>{p.title}</h2>
        {p.long && (
          <button type="button" class="button small" data-testid={`${p.testid}-close`} onClick={p.onClose}>
            Close
          </button>
        )}
      </div>
      {p.children}
    </dialog>
  );
}

interface Props extends ModalProps {
  /** The word on the button that goes ahead. */
  confirm: string;
  busy: boolean;
  error?: string;
  onConfirm: () => void;
}

/** ConfirmDialog asks before something that cannot be undone; Escape and Keep
 * close it. */
export function ConfirmDialog(p: Props): JSX.Element {
  return (
    <Modal title={p.title} testid={p.testid} onClose={p.onClose}>
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
    </Modal>
  );
}
