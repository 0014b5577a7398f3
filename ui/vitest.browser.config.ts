import { defineConfig } from "vitest/config";

// The built page in a real browser against the mock server: `npm run build`,
// then `npm run test:browser`. Needs Chromium.
export default defineConfig({
  test: {
    environment: "node",
    include: ["test/browser/**/*.test.ts"],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    fileParallelism: false,
  },
});
