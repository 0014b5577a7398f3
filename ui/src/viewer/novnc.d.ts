// The part of @novnc/novnc 1.7.0 that is used; the package has no types.
declare module "@novnc/novnc" {
  interface RFBEventMap {
    connect: CustomEvent<object>;
    disconnect: CustomEvent<{ clean: boolean }>;
    credentialsrequired: CustomEvent<object>;
    securityfailure: CustomEvent<{ status: number; reason?: string }>;
    clipboard: CustomEvent<{ text: string }>;
  }

  export default class RFB {
    /** Takes over the channel; an open one is used at once. */
    constructor(target: HTMLElement, channel: WebSocket, options?: { shared?: boolean });
    scaleViewport: boolean;
    resizeSession: boolean;
    showDotCursor: boolean;
    background: string;
    focusOnClick: boolean;
    qualityLevel: number;
    compressionLevel: number;
    disconnect(): void;
    focus(options?: FocusOptions): void;
    sendKey(keysym: number, code: string | null, down?: boolean): void;
    clipboardPasteFrom(text: string): void;
    addEventListener<K extends keyof RFBEventMap>(type: K, fn: (e: RFBEventMap[K]) => void): void;

    /** Not documented by noVNC; see ViewerRFB. */
    protected _screenSize(): { w: number; h: number };
    /** Not documented by noVNC; see ViewerRFB. */
    protected _requestRemoteResize(): void;
    /** Not documented by noVNC; see ViewerRFB. */
    protected _pendingRemoteResize: boolean;
    /** Not documented by noVNC; see ViewerRFB. */
    protected _rfbConnectionState: string;
    /** Not documented by noVNC; see ViewerRFB. */
    protected _clipboardText: string | null;
    /** Not documented by noVNC; see ViewerRFB. */
    protected _sock: object;
    /** Not documented by noVNC; see ViewerRFB. */
    static messages: { extendedClipboardProvide(sock: object, formats: number[], data: string[]): void };
  }
}
