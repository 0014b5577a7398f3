import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { deleteCredential } from "../api/client";
import { ApiError, sentence } from "../api/errors";
import type { Credential, Provider } from "../api/types";
import { ConfirmDialog } from "../parts/Dialog";

interface Props {
  provider: Provider;
  credential: Credential;
  onClose: () => void;
  onDeleted: () => void;
}

/** DeleteDialog asks before the stored copy is deleted, and says what that does
 * not do. */
export function DeleteDialog({ provider, credential, onClose, onDeleted }: Props): JSX.Element {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const remove = async (): Promise<void> => {
    setBusy(true);
    setError("");
    try {
      await deleteCredential(credential.id);
    } catch (err) {
      // Deleted elsewhere is deleted.
      if (!(err instanceof ApiError && err.code === "not_found")) {
        setError(sentence(err));
        setBusy(false);
        return;
      }
    }
    onDeleted();
    onClose();
  };
  return (
    <ConfirmDialog
      title={`Delete the credentials of ${provider.title}?`}
      confirm="Delete"
      testid="delete-dialog"
      busy={busy}
      error={error}
      onConfirm={() => void remove()}
      onClose={onClose}
    >
      <p>The copy in the vault is deleted and cannot be brought back.</p>
      {provider.revokes.length > 0 ? (
        <>
          <p>The sign-in at {provider.vendor} stays valid until you end it. On your machine:</p>
          <ul class="commands">
            {provider.revokes.map((c) => (
              <li key={c}>
                <code>{c}</code>
              </li>
            ))}
          </ul>
        </>
      ) : (
        <p>The sign-in at {provider.vendor} stays valid until you end it in your account there.</p>
      )}
    </ConfirmDialog>
  );
}
