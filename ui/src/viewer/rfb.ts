import RFB from "@novnc/novnc";
import { remoteSize, type Size } from "./size";

// A size that the server has not taken by then is asked for once more.
const AGAIN_MS = 2000;

// The extended clipboard's format of plain text.
const FORMAT_TEXT = 1;

/** ViewerRFB is noVNC's RFB, asking for a remote screen of a size that suits
 * Chromium instead of exactly the viewer's: a phone is narrower than Chromium's
 * narrowest window, and a fractional size would be asked for again and again.
 * noVNC scales the picture to the viewer, mouse positions included.
 *
 * Text for the remote clipboard it sends at once. noVNC only announces it, and
 * the remote program fetches it as it pastes: a key that is pressed meanwhile,
 * such as Enter after a password, would be there before the text.
 *
 * A size that was refused or not answered, as while another viewer changes it, is
 * asked for again. noVNC would wait for ever.
 *
 * For all three it uses what is not part of noVNC's documented interface; the version
 * is pinned, and a test fails if an update takes it away. */
export class ViewerRFB extends RFB {
  private asking = false;
  private again: ReturnType<typeof setTimeout> | undefined;

  override clipboardPasteFrom(text: string): void {
    super.clipboardPasteFrom(text);
    // Without the extended clipboard the text has just been sent.
    if (this._clipboardText === text) RFB.messages.extendedClipboardProvide(this._sock, [FORMAT_TEXT], [text]);
  }

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
    if (!this._pendingRemoteResize) return;
    clearTimeout(this.again);
    this.again = setTimeout(() => {
      if (this._rfbConnectionState !== "connected") return;
      this._pendingRemoteResize = false;
      this._requestRemoteResize();
    }, AGAIN_MS);
  }
}
