/** The page on which one draws three characters and a fourth. */

import { Cell, paintStrokes } from "./cell";
import recorded from "./drawings.json";
import hands from "./hands.json";
import type { ModelDescription, RunRecord } from "./model";
import { copyLink, decodeDrawings, encodeDrawings, font, savePicture, sharedState } from "./share";
import type { Drawing } from "./strokes";
import type { Answer, Request } from "./worker";

const CLASSES = 3;

const element = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

/** The recorded drawings by character: several variants of each. */
const characters: Drawing[][] = Object.values(recorded as Record<string, Drawing[]>).map(
  (variants) =>
    variants.map((drawing) => drawing.map((stroke) => stroke.map((value) => value / 1000))),
);

const template = element<HTMLTemplateElement>("cell");
const names = ["Character 1", "Character 2", "Character 3", "The fourth drawing"];
const cells = names.map(
  (name, i) => new Cell(template, i < CLASSES ? `${i + 1}` : "?", name, changed, () => example(i)),
);
const [examples, query] = [cells.slice(0, CLASSES), cells[CLASSES] as Cell];
cells.forEach((cell, i) => {
  cell.element.dataset.cell = `${i + 1}`;
  if (i < CLASSES) cell.element.classList.add(`class-${i + 1}`);
  element(i < CLASSES ? "examples" : "query").append(cell.element);
});
const bars = examples.map((_, i) => {
  const bar = document.createElement("li");
  bar.className = `class-${i + 1}`;
  bar.innerHTML =
    `<span class="label">${i + 1}</span><span class="track" role="meter" aria-valuemin="0" ` +
    `aria-valuemax="100" aria-label="Character ${i + 1}"><span class="fill"></span></span>` +
    `<span class="value"></span>`;
  element("bars").append(bar);
  return bar;
});

const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
const ask = (request: Request) => worker.postMessage(request);
let ready = false;
/** The probabilities that are shown. */
let shown: Float64Array | null = null;
/** Whether the worker is at work, and whether something was drawn meanwhile. */
let [busy, stale] = [false, false];

worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => {
  if (data.kind === "loaded") {
    ready = true;
    showCard(data.description);
    update();
  } else if (data.kind === "checked") {
    element("difference").textContent =
      `Largest difference of a fine-tuned logit: ${data.difference.toExponential(1)}`;
  } else if (data.kind === "failed") {
    busy = false;
    element("answer").textContent = `Something went wrong: ${data.message}`;
  } else {
    busy = false;
    show(data.probabilities, data.milliseconds);
    if (stale) update();
  }
});
worker.addEventListener("error", ({ message }) => {
  element("answer").textContent = `Something went wrong: ${message || "the worker did not start"}`;
});
ask({ kind: "load", folder: new URL("./model/", document.baseURI).href });

function changed(): void {
  element("shared").textContent = "";
  update();
}

/** Asks for the probabilities of what is drawn now; at most one question is on its way. */
function update(): void {
  stale = busy;
  document.body.dataset.state = "stale"; // what is shown is not what is drawn; see show()
  if (!ready || busy) return;
  const images = examples.map((cell) => cell.image());
  const missing = images.flatMap((image, i) => (image ? [] : [i + 1]));
  if (missing.length > 0) {
    show(null, null);
    element("answer").textContent =
      missing.length === CLASSES
        ? "Draw three different characters first."
        : missing.length > 1
          ? `Characters ${missing.join(" and ")} are still to be drawn.`
          : `Character ${missing} is still to be drawn.`;
    return;
  }
  const pixels = (images as Float64Array[]).flatMap((image) => [...image]);
  busy = true;
  ask({ kind: "classify", examples: Float64Array.from(pixels), query: query.image() });
}

function show(probabilities: Float64Array | null, milliseconds: number | null): void {
  if (!stale) document.body.dataset.state = "current";
  shown = probabilities;
  const best = probabilities ? probabilities.indexOf(Math.max(...probabilities)) : -1;
  bars.forEach((bar, i) => {
    const share = probabilities?.[i] ?? 0;
    (bar.querySelector(".fill") as HTMLElement).style.width = `${100 * share}%`;
    (bar.querySelector(".value") as HTMLElement).textContent = probabilities ? percent(share) : "";
    bar.querySelector(".track")?.setAttribute("aria-valuenow", (100 * share).toFixed(0));
    bar.classList.toggle("best", i === best);
    examples[i]?.element.classList.toggle("best", i === best);
  });
  element("timing").textContent =
    milliseconds === null ? "" : `Learned in ${Math.max(1, Math.round(milliseconds))} ms`;
  element("answer").textContent = probabilities
    ? `Most like character ${best + 1}.`
    : "Learned. Now draw one of the three again.";
}

function showCard({ record, inner_steps }: ModelDescription): void {
  element("steps").textContent = `${inner_steps}`;
  const { task, seed } = record.config;
  const accuracy = (value: RunRecord["accuracy"][string] | undefined) => {
    if (!value) return "not measured";
    const { mean, interval95, tasks } = value;
    const interval = interval95 === null ? "" : ` ± ${(100 * interval95).toFixed(1)}`;
    return `${(100 * mean).toFixed(1)}${interval} % (${tasks.toLocaleString("en")} tasks)`;
  };
  const rows: [string, string][] = [
    ["Task", `${task.shots}-shot ${task.classes}-way, ${inner_steps} Adam steps, not transductive`],
    ["Data", `${task.dataset === "omniglot" ? "Omniglot" : task.dataset}, split by seed ${seed}`],
    ["Reptile meta-iterations", record.iterations.toLocaleString("en")],
    ["Accuracy, characters never seen", accuracy(record.accuracy.test)],
    ["Accuracy, training characters", accuracy(record.accuracy.train)],
    ["Accuracy, synthetic hands: the example drawings, varied by code", accuracy(hands)],
  ];
  for (const [term, detail] of rows) {
    const row = document.createElement("div");
    row.append(
      Object.assign(document.createElement("dt"), { textContent: term }),
      Object.assign(document.createElement("dd"), { textContent: detail }),
    );
    element("card").append(row);
  }
}

const random = (count: number) => Math.floor(Math.random() * count);

/**
 * A recorded drawing for a cell: of a character that no other cell shows or, in the fourth, of one
 * that the others do show, if there is one.
 */
function example(cell: number): Drawing {
  const others = examples.filter((_, i) => i !== cell).map(({ drawing }) => drawing);
  const isShown = ([first]: Drawing[]) => others.some((drawing) => drawing === first);
  const inCells = characters.filter(isShown);
  if (cell === CLASSES) {
    const variants = (inCells.length > 0 ? inCells : characters)[
      random(inCells.length)
    ] as Drawing[];
    return variants[1 + random(variants.length - 1)] as Drawing;
  }
  const free = characters.filter((variants) => !isShown(variants));
  return free[random(free.length)]?.[0] as Drawing;
}

element("example").addEventListener("click", () => {
  cells.forEach((cell, i) => {
    cell.set(example(i));
  });
});
element("clear-all").addEventListener("click", () => {
  for (const cell of cells) cell.clear();
});
element("check").addEventListener("click", () => {
  element("difference").textContent = "Computing …";
  ask({ kind: "check" });
});
element("share").addEventListener("click", async () => {
  const drawings = encodeDrawings(cells.map(({ drawing }) => drawing));
  element("shared").textContent = await copyLink({ drawings });
});
element("save").addEventListener("click", () => {
  savePicture("draw-and-classify.png", 1200, 420, (context, color) => {
    cells.forEach(({ drawing }, i) => {
      const share = shown?.[i];
      const left = 40 + 284 * i;
      context.fillStyle = color(i < CLASSES ? `--class-${i + 1}` : "--text");
      context.font = font(26, 700);
      context.fillText(i < CLASSES ? `${i + 1}` : "?", left, 40);
      if (share !== undefined) {
        context.fillRect(left, 345, 268 * share, 14);
        context.font = font(22);
        context.fillText(percent(share), left, 385);
      }
      context.save();
      context.translate(left, 62);
      context.scale(268, 268);
      context.fillStyle = color("--paper");
      context.fillRect(0, 0, 1, 1);
      context.strokeStyle = color("--ink");
      paintStrokes(context, drawing);
      context.restore();
    });
  });
});

/** Puts the drawings of a shared link into the cells. */
function openLink(): void {
  const drawings = decodeDrawings(sharedState().get("drawings") ?? "", cells.length);
  drawings?.forEach((drawing, i) => {
    cells[i]?.set(drawing);
  });
}
window.addEventListener("hashchange", openLink);
openLink();
document.addEventListener("keydown", (event) => {
  const cell = cells[Number(event.key) - 1];
  if (cell && !event.ctrlKey && !event.metaKey && !event.altKey) {
    cell.focus();
    event.preventDefault();
  }
});
