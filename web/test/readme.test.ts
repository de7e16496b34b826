/** The tables of README.md are those of the files they come from. */

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import hands from "../src/hands.json";
import { description } from "./support/exported";

const read = (name: string) => readFileSync(new URL(`../${name}`, import.meta.url), "utf8");
const readme = read("README.md");

interface Measurement {
  name: string;
  filters: number;
  first?: number;
  later?: number;
  cpu?: number;
  error?: string;
}

test("the benchmark", () => {
  const { measurements } = JSON.parse(read("bench/results.json")) as {
    measurements: Measurement[];
  };
  const rows = measurements.map(({ name, filters, first, later, cpu, error }) =>
    error
      ? `| ${name} | ${filters} | not possible: ${error} | | |`
      : `| ${name} | ${filters} | ${first} | ${later} | ${cpu} |`,
  );
  expect(rows.length).toBeGreaterThan(6);
  expect(readme).toContain(`|---|---|---|---|---|\n${rows.join("\n")}\n`);
});

test("the measurements of Omniglot", () => {
  const found = JSON.parse(read("bench/omniglot.json")) as Record<string, Record<string, number>>;
  const rows: [string, string, number][] = [
    ["longest side", "longest side of the box around the ink, of the canvas", 2],
    ["horizontal center", "center of that box, horizontal", 2],
    ["vertical center", "center of that box, vertical", 2],
    ["pen width", "width of the pen, pixels", 1],
    ["ink", "share of ink at 28×28", 3],
  ];
  for (const [key, title, digits] of rows) {
    const cells = ["mean", "5 %", "50 %", "95 %"].map((column) => {
      const value = found[key]?.[column] as number;
      return Number.isInteger(value) ? `${value}` : value.toFixed(digits);
    });
    expect(readme).toContain(`| ${title} | ${cells.join(" | ")} |`);
  }
});

test("the choice of the network, which is the better one on held-out characters", () => {
  const found = JSON.parse(read("bench/choose.json")) as Record<string, number>[];
  const rows = found.map((each) => {
    const [mean, interval] = [each.mean, each.interval95].map((v) => (100 * (v ?? 0)).toFixed(1));
    const cells = [each.inner_batch, each.inner_iters, each.meta_iters, `${mean} ± ${interval} %`];
    return `| ${cells.join(" | ")} |`;
  });
  expect(readme).toContain(`|---|---|---|---|\n${rows.join("\n")}\n`);
  const best = found.reduce((a, b) => ((a.mean ?? 0) > (b.mean ?? 0) ? a : b));
  expect(description.record.config).toMatchObject({ inner: { inner_batch: best.inner_batch } });
});

test("the model card", () => {
  const { record, inner_steps } = description;
  const accuracy = (split: string) => {
    const { mean, interval95, tasks } = record.accuracy[split] as (typeof record.accuracy)[string];
    const interval = (100 * (interval95 as number)).toFixed(2);
    return `${(100 * mean).toFixed(2)} ± ${interval} % (${tasks.toLocaleString("en")} tasks)`;
  };
  const { seed, task, model } = record.config;
  const lines = [
    `- 3-way 1-shot on Omniglot, ${model.filters} filters, split by seed ${seed}; trained with ${task.train_shots} examples per class.`,
    `- ${record.iterations.toLocaleString("en")} Reptile meta-iterations, meta step 1 → 0.`,
    `- Accuracy after ${inner_steps} Adam steps, without transduction, ± 95 % interval over tasks: test characters ${accuracy("test")}, training characters ${accuracy("train")}.`,
    `- Accuracy on the drawings in ${hands.hands} synthetic hands, by \`npm run hands\`: ${(100 * hands.mean).toFixed(1)} ± ${(100 * hands.interval95).toFixed(1)} % (${hands.tasks} tasks, ${hands.queries} queries).`,
  ];
  expect(readme).toContain(lines.join("\n"));
});
