import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

// What the build reads; supervised_reptile/tools/demo.py has the same list.
const SOURCES = [
  "src",
  "public",
  "index.html",
  "figure.html",
  "vite.config.ts",
  "package-lock.json",
];

function filesBelow(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path).flatMap((name) => filesBelow(`${path}/${name}`));
}

/** Leaves the SHA-256 of the sources with the pages, which tells whether they are up to date. */
function sourcesDigest(): Plugin {
  return {
    name: "sources-digest",
    generateBundle() {
      const hash = createHash("sha256");
      const root = import.meta.dirname;
      const files = SOURCES.flatMap((name) => filesBelow(join(root, name)));
      for (const file of files.sort()) {
        hash.update(`${file.slice(root.length + 1)}\0`).update(readFileSync(file));
      }
      this.emitFile({
        type: "asset",
        fileName: "sources.sha256",
        source: `${hash.digest("hex")}\n`,
      });
    },
  };
}

export default defineConfig({
  base: "./", // so that the pages work below any path
  plugins: [sourcesDigest()],
  build: {
    target: "es2022",
    outDir: "../supervised_reptile/tools/pages", // they come with the Python package
    emptyOutDir: true,
    rolldownOptions: { input: ["index.html", "figure.html"] },
  },
  worker: { format: "es" },
  test: { testTimeout: 240_000, hookTimeout: 240_000 }, // for machines with much else to do
});
