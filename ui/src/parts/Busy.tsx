import type { JSX } from "preact";

/** Busy says that something is on its way; what, is the label. */
export function Busy({ label }: { label: string }): JSX.Element {
  return (
    <p class="busy" role="status">
      <span class="spinner" aria-hidden="true" />
      {label}
    </p>
  );
}
