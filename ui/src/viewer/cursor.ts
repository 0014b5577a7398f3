import type { CursorPicture } from "./wire";

// Browsers show no larger picture as a pointer.
const MAX_SIDE = 128;

/** cursorStyle is the value of the CSS property cursor that shows the picture.
 * A data: address, which the page's policy allows for pictures, is there at
 * once, so that the pointer does not flicker. */
export function cursorStyle(picture: CursorPicture): string {
  if (!picture) return "none";
  const { width, height, hotX, hotY, rgba } = picture;
  if (width > MAX_SIDE || height > MAX_SIDE) return "default";
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const ctx = canvas.getContext("2d");
  if (!ctx) return "default";
  ctx.putImageData(new ImageData(rgba, width, height), 0, 0);
  return `url(${canvas.toDataURL()}) ${Math.min(hotX, width - 1)} ${Math.min(hotY, height - 1)}, default`;
}
