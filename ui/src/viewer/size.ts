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
