/**
 * `npm run bench`: how long the page's fine-tuning takes, and what TensorFlow.js' backends would
 * take for it, in headless Chromium without a GPU. Writes results.json beside this file.
 */

import { cpSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { createServer } from "vite";
import { test } from "vitest";
import { launch } from "../browser/pages";
import type { Contestant, Measurement } from "./page";

const FOLDER = fileURLToPath(new URL("./", import.meta.url));
const STEPS = 10;
const ROUNDS = 5;
const CONTESTANTS: Contestant[] = [
  { name: "typed arrays (the page)", backend: "arrays", form: "patches" },
  { name: "TensorFlow.js WASM, patches and matMul", backend: "wasm", form: "patches" },
  { name: "TensorFlow.js WASM, conv2d", backend: "wasm", form: "conv2d" },
  { name: "TensorFlow.js WebGL (SwiftShader), conv2d", backend: "webgl", form: "conv2d" },
  { name: "TensorFlow.js WebGPU, conv2d", backend: "webgpu", form: "conv2d" },
  { name: "TensorFlow.js CPU, conv2d", backend: "cpu", form: "conv2d" },
];

test("benchmark", { timeout: 1_200_000 }, async () => {
  const wasm = "node_modules/@tensorflow/tfjs-backend-wasm/dist/";
  cpSync(`${FOLDER}../${wasm}`, `${FOLDER}public/wasm/`, {
    recursive: true,
    filter: (path) => path.endsWith("/") || path.endsWith("dist") || path.endsWith(".wasm"),
  });
  const server = await createServer({ root: FOLDER, server: { port: 0 }, logLevel: "error" });
  await server.listen();
  const browser = await launch("--enable-unsafe-swiftshader");
  const measurements: Measurement[] = [];
  try {
    const page = await browser.newPage();
    await page.goto(server.resolvedUrls?.local[0] ?? "");
    await page.waitForFunction(() => "measure" in window, null, { timeout: 120_000 });
    for (const filters of [24, 64]) {
      for (const contestant of CONTESTANTS) {
        const measured = await page.evaluate(
          ([each, count, steps, rounds]) =>
            (window as unknown as { measure: typeof import("./page").measure }).measure(
              each,
              count,
              steps,
              rounds,
            ),
          [contestant, filters, STEPS, ROUNDS] as const,
        );
        measurements.push(measured);
        console.log(JSON.stringify(measured));
      }
    }
  } finally {
    const environment = {
      date: new Date().toISOString().slice(0, 10),
      processor: cpus()[0]?.model,
      cores: cpus().length,
      browser: browser.version(),
      node: process.version,
    };
    await browser.close();
    await server.close();
    const what = `milliseconds of ${STEPS} Adam steps on 3 images and one prediction`;
    const content = { what, rounds: ROUNDS, environment, measurements };
    writeFileSync(`${FOLDER}results.json`, `${JSON.stringify(content, null, 2)}\n`);
  }
});
