/** styleSheetElement stands for a <style> element where the content security
 * policy forbids those: the text that is written into it takes effect as a
 * constructed style sheet, from then until it is removed. The build puts it in
 * the place of xterm.js's own style elements (see tools/strictXterm.ts). */
export function styleSheetElement(doc: Document = document): HTMLElement {
  const el = doc.createElement("span");
  const sheet = new CSSStyleSheet();
  let text = "";
  el.hidden = true;
  doc.adoptedStyleSheets = [...doc.adoptedStyleSheets, sheet];
  Object.defineProperty(el, "textContent", {
    get: () => text,
    set: (css: string) => {
      text = css;
      sheet.replaceSync(css);
    },
  });
  const remove = el.remove.bind(el);
  el.remove = (): void => {
    doc.adoptedStyleSheets = doc.adoptedStyleSheets.filter((s) => s !== sheet);
    remove();
  };
  return el;
}
