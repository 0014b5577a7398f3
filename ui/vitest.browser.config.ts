import { defineConfig } from "vitest/config";

// The built page in a real browser against the mock server: `npm run build`,
// then `npm run test:browser`. Needs Debian's Chromium. The times are for a busy
// machine; a test that passes waits for nothing.
export default defineConfig({
  test: {
    environment: "node",
    include: ["test/browser/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    fileParallelism: false,
  },
});
