export interface Page {
  width: number;
  height: number;
  typed: number;
  done: boolean;
}

type Colour = readonly [number, number, number];

/** paint draws something like a browser with a sign-in page, as raw pixels in
 * the order that noVNC asks for: red, green, blue, nothing. */
export function paint({ width: W, height: H, typed, done }: Page): Buffer {
  const px = Buffer.alloc(W * H * 4, 255);
  const box = (x: number, y: number, w: number, h: number, [r, g, b]: Colour): void => {
    const x0 = Math.max(0, Math.round(x));
    const x1 = Math.min(W, Math.round(x + w));
    for (let j = Math.max(0, Math.round(y)); j < Math.min(H, Math.round(y + h)); j++) {
      for (let i = x0; i < x1; i++) px.set([r, g, b, 255], (j * W + i) * 4);
    }
  };
  box(0, 0, W, H, [250, 249, 245]);
  box(0, 0, W, 40, [222, 225, 230]);
  box(12, 8, Math.min(220, W / 3), 32, [255, 255, 255]);
  box(0, 40, W, 40, [255, 255, 255]);
  for (let i = 0; i < 3; i++) box(16 + i * 34, 53, 14, 14, [150, 155, 160]);
  box(120, 47, W - 180, 26, [237, 239, 242]);
  box(134, 57, Math.min(240, W / 3), 6, [110, 115, 120]);
  box(0, 80, W, 1, [210, 212, 216]);

  const w = Math.min(380, W - 60);
  const x = (W - w) / 2;
  const y = Math.max(110, H / 2 - 190);
  box(x + w / 2 - 22, y, 44, 44, done ? [64, 145, 108] : [217, 119, 87]);
  box(x + w * 0.18, y + 70, w * 0.64, 18, [40, 40, 38]);
  box(x + w * 0.28, y + 100, w * 0.44, 9, [150, 148, 142]);
  if (done) return px;
  box(x, y + 140, w, 48, [205, 203, 196]);
  box(x + 1, y + 141, w - 2, 46, [255, 255, 255]);
  for (let i = 0; i < Math.min(typed, Math.floor((w - 30) / 14)); i++) box(x + 16 + i * 14, y + 160, 8, 8, [40, 40, 38]);
  box(x + 16 + Math.min(typed, Math.floor((w - 30) / 14)) * 14, y + 152, 2, 24, [40, 40, 38]);
  box(x, y + 204, w, 48, [40, 40, 38]);
  box(x + w * 0.36, y + 224, w * 0.28, 8, [240, 240, 236]);
  box(x + w * 0.2, y + 276, w * 0.6, 7, [180, 178, 172]);
  return px;
}
