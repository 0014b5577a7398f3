/** Still is the last picture, which stands in front of the screen while there
 * is no newer one. */
export class Still {
  readonly el = document.createElement("div");

  constructor() {
    this.el.className = "stage-still";
    this.el.setAttribute("aria-hidden", "true");
  }

  keep(canvas: HTMLCanvasElement): void {
    this.el.replaceChildren(canvas);
  }

  /** copy keeps what a video shows at this moment, if it shows anything. */
  copy(video: HTMLVideoElement): void {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    if (canvas.width === 0 || canvas.height === 0) return;
    canvas.getContext("2d")?.drawImage(video, 0, 0);
    this.keep(canvas);
  }

  clear(): void {
    this.el.replaceChildren();
  }
}
