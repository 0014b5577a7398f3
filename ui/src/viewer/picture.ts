/** hasPicture waits until something was painted on the canvas, looking once per
 * frame at a one-pixel copy so that the canvas itself is never read back.
 * Resolves to false when the signal aborts first. */
export function hasPicture(canvas: HTMLCanvasElement, signal: AbortSignal): Promise<boolean> {
  const probe = document.createElement("canvas");
  probe.width = probe.height = 1;
  const ctx = probe.getContext("2d", { willReadFrequently: true });
  return new Promise((resolve) => {
    const look = (): void => {
      if (signal.aborted || !ctx) return resolve(!signal.aborted);
      if (canvas.width > 0 && canvas.height > 0) {
        ctx.drawImage(canvas, 0, 0, 1, 1);
        if ((ctx.getImageData(0, 0, 1, 1).data[3] ?? 0) > 0) return resolve(true);
      }
      requestAnimationFrame(look);
    };
    look();
  });
}
