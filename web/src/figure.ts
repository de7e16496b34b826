/** The page on which θ moves over the losses of several tasks. */

import {
  ALGORITHMS,
  type Algorithm,
  meanLosses,
  OPTIMIZERS,
  outerStep,
  type Settings,
} from "./algorithms";
import { EXTENT, type Point, SCENES, type Scene } from "./landscape";
import { pointNearAll, solutionManifold } from "./manifolds";
import { linesOf, Panel } from "./panel";
import { copyLink, font, savePicture, sharedState } from "./share";

const COLORS = ["--reptile", "--fomaml", "--maml", "--joint"];
const FACTS = ["loss at θ", "after k steps", "θ to ★"];
/** What each algorithm does, in a line. */
const RULES: Record<Algorithm, string> = {
  Reptile: "Moves θ toward where the k inner steps end.",
  FOMAML: "Moves θ along the last inner step alone.",
  MAML: "Differentiates the last step’s loss through the steps before it.",
  "Joint training": "Moves θ along the first inner step: the mean gradient.",
};
const MILLISECONDS_A_STEP = 40;
/** Playing ends when no θ moves farther than this in a round of all tasks. */
const STILL = 2e-5;

/** Where an algorithm is and how it came there. */
interface Run {
  theta: Point;
  trail: Point[];
  /** Mean loss after adapting, at each θ of the trail and at θ itself. */
  losses: number[];
}

const element = <T extends Element = HTMLElement>(id: string) =>
  document.getElementById(id) as unknown as T;
const input = (id: string) => element<HTMLInputElement>(id);
const select = (id: string) => element<HTMLSelectElement>(id);
const control = (id: string) => element<HTMLInputElement | HTMLSelectElement>(id);
/** The controls whose values a shared link holds. */
const SHARED = ["scene", "optimizer", "k", "alpha", "beta", "turn"];

let scene = SCENES[0] as Scene;
let start = scene.start;
let star: Point = [0, 0];
let runs: Run[] = [];
let outerSteps = 0;
let timer = 0;

const panels = ALGORITHMS.map((name, i) => {
  const panel = new Panel(name, RULES[name], COLORS[i] as string, FACTS, (to) => {
    start = to;
    restart();
  });
  element("panels").append(panel.element);
  return panel;
});

function settings(): Settings {
  return {
    optimizer: OPTIMIZERS[select("optimizer").selectedIndex] ?? "SGD",
    innerSteps: input("k").valueAsNumber,
    learningRate: input("alpha").valueAsNumber,
    interpolation: input("beta").valueAsNumber,
  };
}

/** Numbers of the tasks that the next outer step takes. */
function tasksInTurn(): number[] {
  const all = scene.tasks.map((_, i) => i);
  return select("turn").value === "all" ? all : [outerSteps % all.length];
}

function chooseScene(): void {
  scene = SCENES[select("scene").selectedIndex] ?? (SCENES[0] as Scene);
  start = scene.start;
  const manifolds = scene.tasks.map(solutionManifold);
  star = pointNearAll(manifolds, [0, 0]);
  const lines = linesOf(scene, manifolds);
  for (const panel of panels) panel.setLines(lines);
  const legend: [string, string, string][] = [
    ...scene.tasks.map(({ name, steepness }, i): [string, string, string] => [
      `class-${i + 1}`,
      "",
      `${name}: solved on this curve; steepness ${steepness}`,
    ]),
    ["sign", "●", "large: θ; small: φ of each task, and where θ goes next"],
    ["sign", "★", "nearest to all the curves"],
  ];
  element("legend").replaceChildren(
    ...legend.map(([className, sign, text]) => {
      const item = Object.assign(document.createElement("li"), { className, textContent: text });
      item.dataset.sign = sign;
      return item;
    }),
  );
  restart();
}

function restart(): void {
  outerSteps = 0;
  const { after } = meanLosses(scene.tasks, start, settings());
  runs = ALGORITHMS.map(() => ({ theta: start, trail: [], losses: [after] }));
  paint();
}

function step(): void {
  const chosen = settings();
  const tasks = tasksInTurn().map((i) => scene.tasks[i] as Scene["tasks"][number]);
  runs.forEach((run, i) => {
    const { next } = outerStep(ALGORITHMS[i] ?? "Reptile", tasks, run.theta, chosen);
    run.trail.push(run.theta);
    run.theta = next;
    run.losses.push(meanLosses(scene.tasks, next, chosen).after);
  });
  outerSteps += 1;
  paint();
}

function play(on: boolean): void {
  clearInterval(timer);
  timer = on ? window.setInterval(playOn, MILLISECONDS_A_STEP) : 0;
  element("play").textContent = on ? "Pause" : "Play";
}

function playOn(): void {
  step();
  const isStill = runs.every(({ theta, trail }) => {
    const [x, y] = trail.at(-scene.tasks.length) ?? [Number.POSITIVE_INFINITY, 0];
    return Math.hypot(theta[0] - x, theta[1] - y) < STILL;
  });
  if (isStill) play(false);
}

function paint(): void {
  const chosen = settings();
  const numbers = tasksInTurn();
  const tasks = numbers.map((i) => scene.tasks[i] as Scene["tasks"][number]);
  panels.forEach((panel, i) => {
    const { theta, trail } = runs[i] as Run;
    const { paths, next } = outerStep(ALGORITHMS[i] ?? "Reptile", tasks, theta, chosen);
    const { before, after } = meanLosses(scene.tasks, theta, chosen);
    const away = Math.hypot(theta[0] - star[0], theta[1] - star[1]);
    panel.show(
      { theta, trail, paths, tasks: numbers, next, star },
      [before, after, away].map((value) => value.toFixed(3)),
    );
  });
  for (const id of ["k", "alpha", "beta"]) element(`${id}-value`).textContent = input(id).value;
  element("shared").textContent = "";
  paintChart();
}

function paintChart(): void {
  const chart = element<SVGSVGElement>("chart");
  const [width, height] = [chart.clientWidth - 16, chart.clientHeight - 16];
  if (width <= 0) return;
  const [left, bottom] = [44, 22];
  const longest = Math.max(20, outerSteps);
  const highest = Math.max(1e-3, ...runs.flatMap(({ losses }) => losses));
  const x = (at: number) => left + (at / longest) * (width - left - 8);
  const y = (loss: number) => 8 + (1 - loss / highest) * (height - bottom - 8);
  const lines = runs.map(({ losses }, i) => {
    const points = losses.map((loss, at) => `${x(at).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
    return `<polyline points="${points}" style="stroke: var(${COLORS[i]})"/>`;
  });
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  element<SVGGElement>("lines").innerHTML =
    `<line class="axis" x1="${left}" y1="${y(0)}" x2="${width}" y2="${y(0)}"/>` +
    `<line class="axis" x1="${left}" y1="${y(highest)}" x2="${left}" y2="${y(0)}"/>` +
    `<text x="${left - 6}" y="${y(highest) + 5}" text-anchor="end">${highest.toPrecision(2)}</text>` +
    `<text x="${left - 6}" y="${y(0) + 4}" text-anchor="end">0</text>` +
    `<text x="${width - 4}" y="${height - 4}" text-anchor="end">${longest} outer steps</text>` +
    lines.join("");
}

select("scene").append(...SCENES.map(({ name }) => new Option(name)));
select("optimizer").append(...OPTIMIZERS.map((name) => new Option(name)));
select("scene").addEventListener("change", chooseScene);
for (const id of ["optimizer", "k", "alpha", "beta", "turn"]) {
  element(id).addEventListener("input", paint);
}
element("play").addEventListener("click", () => play(timer === 0));
element("step").addEventListener("click", () => {
  play(false);
  step();
});
element("reset").addEventListener("click", () => {
  play(false);
  start = scene.start;
  restart();
});
element("share").addEventListener("click", async () => {
  const state: Record<string, string> = { x: `${start[0]}`, y: `${start[1]}` };
  for (const id of SHARED) state[id] = control(id).value;
  element("shared").textContent = await copyLink(state);
});
element("save").addEventListener("click", () => {
  savePicture("how-reptile-moves.png", 1200, 420, (context, color) => {
    panels.forEach((panel, i) => {
      const left = 40 + 284 * i;
      context.fillStyle = color(COLORS[i] as string);
      context.font = font(24, 700);
      context.fillText(panel.name, left, 36);
      panel.paintInto(context, left, 62, 268);
      context.fillStyle = color("--text");
      context.font = font(18);
      const loss = (runs[i] as Run).losses.at(-1) as number;
      context.fillText(`after k = ${input("k").value} steps: ${loss.toFixed(3)}`, left, 358);
      context.fillText(`outer steps: ${outerSteps}`, left, 388);
    });
  });
});

/** Takes the settings and the start of a shared link; what is not in it stays as it is. */
function openLink(): void {
  const state = sharedState();
  for (const id of SHARED) {
    const field = control(id);
    const [before, value] = [field.value, state.get(id) ?? ""];
    const isRange = field instanceof HTMLInputElement; // which keeps its limits by itself
    if (!isRange || Number.isFinite(Number.parseFloat(value))) field.value = value;
    if (field.value === "") field.value = before; // not one of the list's options
  }
  chooseScene();
  const at = (name: string) => Number.parseFloat(state.get(name) ?? "");
  const [x, y] = [at("x"), at("y")];
  if (Math.abs(x) <= EXTENT && Math.abs(y) <= EXTENT) {
    start = [x, y];
    restart();
  }
}
element("controls").addEventListener("submit", (event) => event.preventDefault());
new ResizeObserver(paintChart).observe(element("chart"));
window.addEventListener("hashchange", openLink);
openLink();
