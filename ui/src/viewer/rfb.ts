import RFB from "@novnc/novnc";
import { remoteSize, type Size } from "./size";

/** ViewerRFB is noVNC's RFB, asking for a remote screen of a size that suits
 * Chromium instead of exactly the viewer's: a phone is narrower than Chromium's
 * narrowest window, and a fractional size would be asked for again and again.
 * noVNC scales the picture to the viewer, mouse positions included.
 *
 * It overrides two methods that are not part of noVNC's documented interface;
 * the version is pinned, and a test fails if an update takes them away. */
export class ViewerRFB extends RFB {
  private asking = false;

  protected override _screenSize(): Size {
    const view = super._screenSize();
    return this.asking ? remoteSize(view) : view;
  }

  protected override _requestRemoteResize(): void {
    this.asking = true;
    try {
      const { w, h } = this._screenSize();
      if (w > 0 && h > 0) super._requestRemoteResize();
    } finally {
      this.asking = false;
    }
  }
}
