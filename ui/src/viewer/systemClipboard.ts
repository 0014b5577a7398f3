// The device's own clipboard, used only where the person has allowed it: what
// is refused stays possible by hand in the clipboard panel.
import { clip } from "../lib/text";

/** takeClipboard puts the remote text on the device's clipboard, if the screen
 * has the focus. A page in the background must not change it. */
export async function takeClipboard(text: string): Promise<void> {
  if (!document.hasFocus() || !document.activeElement?.matches(".stage-keys")) return;
  await writeClipboard(text);
}

/** writeClipboard says whether the device took the text. */
export async function writeClipboard(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

let offered: string | null = null;

/** offerOwnClipboard hands the device's text to the remote clipboard when it
 * has changed, only if the person gave leave to read it earlier: this never
 * asks. */
export async function offerOwnClipboard(offer: (text: string) => void): Promise<void> {
  try {
    const leave = await navigator.permissions.query({ name: "clipboard-read" as PermissionName });
    if (leave.state !== "granted") return;
    const { text } = clip(await navigator.clipboard.readText());
    if (text === "" || text === offered) return;
    offered = text;
    offer(text);
  } catch {
    // This browser has no such permission, or the page lost the focus.
  }
}

/** readClipboard reads the device's clipboard, which may ask the person; null
 * if that was refused or is not possible. */
export async function readClipboard(): Promise<string | null> {
  try {
    return await navigator.clipboard.readText();
  } catch {
    return null;
  }
}
