// xterm.js under a strict Content-Security-Policy.
//
// xterm.js puts its colours into <style> elements and the colours of single
// cells into style attributes. `style-src 'self'` forbids both, and a terminal
// without them is unreadable. The same rules are allowed when they come through
// the object model: a constructed style sheet, and element.style. So xterm.js is
// given a document that makes such elements in their place.

/** strictDocument is the real document, except that the elements it creates
 * keep to the policy. */
export function strictDocument(real: Document = document): Document {
  return new Proxy(real, {
    get(target, key) {
      if (key === "createElement") return (tag: string) => createStrict(target, tag);
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? (value as (...a: unknown[]) => unknown).bind(target) : value;
    },
  });
}

/** withStrictElements runs fn, which must not wait for anything, while the real
 * document makes such elements too: xterm.js 6 asks it for one of its style
 * elements, whatever document it was given. */
export function withStrictElements<T>(fn: () => T, real: Document = document): T {
  Object.defineProperty(real, "createElement", {
    configurable: true,
    value: (tag: string) => createStrict(real, tag),
  });
  try {
    return fn();
  } finally {
    // Uncovers the method of the prototype.
    Reflect.deleteProperty(real, "createElement");
  }
}

function createStrict(doc: Document, tag: string): HTMLElement {
  if (tag.toLowerCase() === "style") return styleElement(doc);
  const el = Document.prototype.createElement.call(doc, tag);
  const setAttribute = el.setAttribute.bind(el);
  el.setAttribute = (name: string, value: string): void => {
    if (name.toLowerCase() === "style") el.style.cssText = value;
    else setAttribute(name, value);
  };
  return el;
}

/** styleElement stands for a <style>: what is written into it takes effect as
 * a constructed style sheet, until it is removed. */
function styleElement(doc: Document): HTMLElement {
  const el = Document.prototype.createElement.call(doc, "span");
  el.hidden = true;
  const sheet = new CSSStyleSheet();
  doc.adoptedStyleSheets = [...doc.adoptedStyleSheets, sheet];
  let text = "";
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
