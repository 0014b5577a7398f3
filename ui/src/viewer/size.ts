export interface Size {
  w: number;
  h: number;
}

// Chromium does not make its window narrower than this: on a smaller screen
// the page would be cut off at the right.
const MIN: Size = { w: 500, h: 400 };
// More pixels than this only cost time; the picture is scaled up instead.
const MAX: Size = { w: 1920, h: 1200 };

/** remoteSize is the size that the remote screen should have for a viewer of
 * the given size: the same shape, within bounds, in whole pixels. */
export function remoteSize(view: Size): Size {
  if (view.w <= 0 || view.h <= 0) return { w: 0, h: 0 };
  const grow = Math.max(1, MIN.w / view.w, MIN.h / view.h);
  const shrink = Math.min(1, MAX.w / (view.w * grow), MAX.h / (view.h * grow));
  const factor = grow * shrink;
  return { w: Math.floor(view.w * factor), h: Math.floor(view.h * factor) };
}

/** expectedSize is about what the viewer will be in a window of this size, as
 * session.css lays it out: a browser machine that starts with it needs no
 * change of size when its picture first shows. */
export function expectedSize(window: Size): Size {
  const small = window.w <= 860 || window.h <= 500;
  const padding = Math.min(24, Math.max(12, 0.02 * window.w));
  const view = small
    ? { w: window.w - 22, h: window.h <= 500 ? Math.max(208, window.h - 120) : Math.max(288, window.h - 440) }
    : { w: window.w - 362 - 2 * padding, h: window.h - 147 };
  return remoteSize({ w: Math.max(1, view.w), h: Math.max(1, view.h) });
}
