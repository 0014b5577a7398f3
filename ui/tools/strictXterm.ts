import { resolve } from "node:path";
import type { Plugin } from "vite";

// xterm.js puts its colours into <style> elements and the colours of single
// cells into style attributes. `style-src 'self'` forbids both, and a terminal
// without them is unreadable. The same is allowed when it comes through the
// object model: a constructed style sheet, and element.style. xterm.js has no
// setting for that (its documentOverride is not used everywhere), so the build
// changes these two kinds of places in its module.
const MODULE = /@xterm\/xterm\/lib\/xterm\.mjs(\?.*)?$/;
const ELEMENT = /[\w.]+\.createElement\("style"\)/g;
const ATTRIBUTE = /(\w+)\.setAttribute\("style",`\$\{\1\.getAttribute\("style"\)\|\|""\}\$\{(\w+)\};`\)/g;
const STAND_IN = resolve(import.meta.dirname, "../src/terminal/styleSheet.ts");

/** strictXterm makes xterm.js keep to the content security policy. It fails the
 * build when xterm.js is no longer as it was when this was written. */
export function strictXterm(): Plugin {
  return {
    name: "strict-xterm",
    enforce: "pre",
    config: () => ({ optimizeDeps: { exclude: ["@xterm/xterm"] } }),
    transform(code, id) {
      if (!MODULE.test(id)) return null;
      return { code: `import { styleSheetElement as $strictStyle } from ${JSON.stringify(STAND_IN)};${strict(code)}`, map: null };
    },
  };
}

/** strict is the module's code with all such places changed. */
export function strict(code: string): string {
  const changed = replace(replace(code, ELEMENT, 3, "$$strictStyle()"), ATTRIBUTE, 1, "$1.style.cssText+=`$${$2};`");
  if (/["'`]style["'`]\s*[,)]/.test(changed)) throw new Error("xterm.js sets styles in a way that tools/strictXterm.ts does not know");
  return changed;
}

function replace(code: string, what: RegExp, times: number, by: string): string {
  const found = code.match(what)?.length ?? 0;
  if (found !== times) throw new Error(`xterm.js has changed: ${found} instead of ${times} places match ${what.source}; see tools/strictXterm.ts`);
  return code.replace(what, by);
}
