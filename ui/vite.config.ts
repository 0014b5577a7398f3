import { defineConfig } from "vitest/config";
import { mockServer } from "./mock/plugin.ts";
import { strictXterm } from "./tools/strictXterm.ts";

export default defineConfig(({ mode }) => ({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  plugins: mode === "mock" ? [strictXterm(), mockServer()] : [strictXterm()],
  build: {
    // Embedded by the server. Emptied first; .gitkeep comes back from public/.
    outDir: "../internal/web/dist",
    emptyOutDir: true,
    target: "es2022",
    // Nothing inline: the content security policy forbids it.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: { fileName: "LICENSES.md" },
  },
  preview: { host: "127.0.0.1", port: 4173 },
  server: { host: "127.0.0.1", port: 5173 },
  test: { environment: "happy-dom", include: ["test/*.test.ts"] },
}));
