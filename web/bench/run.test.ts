/**
 * `npm run bench`: how long the page's fine-tuning takes, and what TensorFlow.js' backends would
 * take for it, in headless Chromium without a GPU. Writes results.json beside this file.
 */

import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { fileURLToPath } from "node:url";
import type { Page } from "playwright-core";
import { createServer } from "vite";
import { test } from "vitest";
import { launch } from "../browser/pages";
import type { Contestant, measure } from "./page";

const FOLDER = fileURLToPath(new URL("./", import.meta.url));
const WASM = fileURLToPath(
  new URL("../node_modules/@tensorflow/tfjs-backend-wasm/dist/", import.meta.url),
);
const STEPS = 10;
const ROUNDS = 5;
const CONTESTANTS: Contestant[] = [
  { name: "typed arrays (these pages)", backend: "arrays", form: "patches" },
  { name: "TensorFlow.js WASM, patches and matMul", backend: "wasm", form: "patches" },
  { name: "TensorFlow.js WASM, conv2d", backend: "wasm", form: "conv2d" },
  { name: "TensorFlow.js WebGL on SwiftShader, conv2d", backend: "webgl", form: "conv2d" },
  { name: "TensorFlow.js WebGPU, conv2d", backend: "webgpu", form: "conv2d" },
  { name: "TensorFlow.js CPU, conv2d", backend: "cpu", form: "conv2d" },
];

/** One line of results.json; times in milliseconds. */
interface Measurement {
  name: string;
  filters: number;
  /** Wall time of the first adaptation, compiling included. */
  first?: number;
  /** Wall time of a later one, the median. */
  later?: number;
  /** Processor time of a later one, over all of the browser's processes and threads. */
  cpu?: number;
  error?: string;
}

/** Processor time in milliseconds of this process' descendants that are alive (Linux). */
function browserCpu(): number {
  const parents = new Map<number, number>();
  const times = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    const id = Number(name);
    if (!id) continue;
    try {
      const stat = readFileSync(`/proc/${id}/stat`, "utf8");
      const fields = stat
        .slice(stat.lastIndexOf(")") + 2)
        .split(" ")
        .map(Number);
      parents.set(id, fields[1] as number);
      times.set(id, ((fields[11] as number) + (fields[12] as number)) * 10); // 100 ticks a second
    } catch {
      // it has ended meanwhile
    }
  }
  const isOurs = (id: number | undefined): boolean =>
    id !== undefined && id > 1 && (id === process.pid || isOurs(parents.get(id)));
  return [...times].reduce(
    (sum, [id, time]) => (id !== process.pid && isOurs(id) ? sum + time : sum),
    0,
  );
}

async function measured(page: Page, contestant: Contestant, filters: number): Promise<Measurement> {
  const run = (rounds: number) =>
    page.evaluate(
      ([each, count, steps, times]) =>
        (window as unknown as { measure: typeof measure }).measure(each, count, steps, times),
      [contestant, filters, STEPS, rounds] as const,
    );
  const { name } = contestant;
  try {
    const [first] = (await run(1)) as [number];
    const before = browserCpu();
    const later = (await run(ROUNDS)).sort((a, b) => a - b);
    const cpu = (browserCpu() - before) / ROUNDS;
    const median = later[ROUNDS >> 1] as number;
    const [f, l, c] = [first, median, cpu].map(Math.round) as [number, number, number];
    return { name, filters, first: f, later: l, cpu: c };
  } catch (error) {
    const message = String(error).split("\n")[0] as string;
    return { name, filters, error: message.replace(/^.*Error: /, "") };
  }
}

test("benchmark", { timeout: 1_200_000 }, async () => {
  cpSync(WASM, `${FOLDER}public/wasm/`, {
    recursive: true,
    filter: (path) => !/\.[^/]*$/.test(path.slice(WASM.length)) || path.endsWith(".wasm"),
  });
  const server = await createServer({ root: FOLDER, server: { port: 0 }, logLevel: "error" });
  await server.listen();
  const browser = await launch("--enable-unsafe-swiftshader");
  const environment = {
    date: new Date().toISOString().slice(0, 10),
    processor: cpus()[0]?.model,
    cores: cpus().length,
    // Above the number of cores other programs ran beside it: wall times are then too long.
    load: loadavg()[0],
    browser: browser.version(),
    node: process.version,
  };
  const measurements: Measurement[] = [];
  try {
    const page = await browser.newPage();
    await page.goto(server.resolvedUrls?.local[0] ?? "");
    await page.waitForFunction(() => "measure" in window, null, { timeout: 120_000 });
    for (const filters of [24, 64]) {
      for (const contestant of CONTESTANTS) {
        measurements.push(await measured(page, contestant, filters));
        console.log(JSON.stringify(measurements.at(-1)));
      }
    }
  } finally {
    await browser.close();
    await server.close();
  }
  const what = `milliseconds of ${STEPS} Adam steps on 3 images and one prediction`;
  const content = { what, rounds: ROUNDS, environment, measurements };
  writeFileSync(`${FOLDER}results.json`, `${JSON.stringify(content, null, 1)}\n`);
});
