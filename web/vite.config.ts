import { defineConfig } from "vitest/config";

export default defineConfig({
  base: "./", // so that the pages work below any path
  build: {
    target: "es2022",
    rolldownOptions: { input: ["index.html", "figure.html"] },
  },
  worker: { format: "es" },
  test: { testTimeout: 240_000, hookTimeout: 240_000 }, // for machines with much else to do
});
