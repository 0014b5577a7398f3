import type { JSX } from "preact";

const PATHS = {
  check: "M4 12.5l5 5L20 6.5",
  cross: "M6 6l12 12M18 6L6 18",
  keyboard: "M3 6.5h18v11H3zM6.5 10h.01M10 10h.01M13.5 10h.01M17 10h.01M8 14h8",
  clipboard: "M8 5H5.5v15h13V5H16M9 3h6v4H9z",
  expand: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  terminal: "M3 5h18v14H3zM7 9.5l3 2.5-3 2.5M12.5 15H17",
  user: "M12 12a4 4 0 100-8 4 4 0 000 8zM4.5 20c1-3.6 4-5.2 7.5-5.2s6.5 1.6 7.5 5.2",
  activity: "M3 12h4l3-7 4 14 3-7h4",
  plug: "M9 3v5M15 3v5M6 8h12v3a6 6 0 01-12 0zM12 17v4",
  shield: "M12 3l7 3v5.5c0 4.5-3 7.7-7 9.5-4-1.8-7-5-7-9.5V6z",
  globe: "M12 3a9 9 0 100 18 9 9 0 000-18zM3 12h18M12 3c3 3 3.6 6 3.6 9S15 18 12 21c-3-3-3.6-6-3.6-9S9 6 12 3",
  back: "M14 5l-7 7 7 7",
  out: "M14 4h6v16h-6M10 8l-4 4 4 4M6 12h9",
} as const;

export type IconName = keyof typeof PATHS;

/** Icon is a drawing beside a word; it says nothing of its own. */
export function Icon({ name }: { name: IconName }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** Mark is Anteroom's door. */
export function Mark(): JSX.Element {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <rect width="32" height="32" rx="8" />
      <path class="mark-frame" d="M9 25V14a7 7 0 0114 0v11M6.5 25h19" />
      <path class="mark-door" d="M13.5 25V14.6a2.5 2.5 0 015 0V25z" />
    </svg>
  );
}
