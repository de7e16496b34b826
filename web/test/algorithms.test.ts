import { describe, expect, test } from "vitest";
import {
  ALGORITHMS,
  adaptTo,
  meanLosses,
  OPTIMIZERS,
  outerStep,
  type Settings,
} from "../src/algorithms";
import {
  gradientAt,
  hessianAt,
  lossAt,
  type Point,
  SCENES,
  type Scene,
  type Task,
} from "../src/landscape";
import { meanSquaredDistance, pointNearAll, solutionManifold } from "../src/manifolds";

const tasks = SCENES.flatMap((scene) => scene.tasks);
const points: Point[] = [
  [0.3, -0.7],
  [-1.9, 1.2],
  [2.5, 2.1],
];
const settings: Settings = {
  optimizer: "SGD",
  innerSteps: 5,
  learningRate: 0.1,
  interpolation: 0.5,
};

/** Central differences of a function of the plane, by x and by y. */
function slopes(f: (at: Point) => number, [x, y]: Point): Point {
  const h = 1e-5;
  return [(f([x + h, y]) - f([x - h, y])) / (2 * h), (f([x, y + h]) - f([x, y - h])) / (2 * h)];
}

function expectClose(received: readonly number[], expected: readonly number[], digits = 6) {
  expect(received).toHaveLength(expected.length);
  received.forEach((value, i) => {
    expect(value).toBeCloseTo(expected[i] as number, digits);
  });
}

describe("derivatives are those of finite differences", () => {
  test("gradient and Hessian of every task", () => {
    for (const task of tasks) {
      for (const at of points) {
        expectClose(
          gradientAt(task, at),
          slopes((p) => lossAt(task, p), at),
        );
        const rows = ([0, 1] as const).map((i) => slopes((p) => gradientAt(task, p)[i], at));
        expectClose(hessianAt(task, at), rows.flat(), 5);
      }
    }
  });

  test.each(OPTIMIZERS)("Jacobian through five steps of %s", (optimizer) => {
    for (const task of tasks) {
      for (const at of points) {
        const end = (p: Point, i: 0 | 1) =>
          (adaptTo(task, p, { ...settings, optimizer }).points.at(-1) as Point)[i];
        const { jacobians } = adaptTo(task, at, { ...settings, optimizer });
        const rows = ([0, 1] as const).map((i) => slopes((p) => end(p, i), at));
        expectClose(jacobians.at(-1) as readonly number[], rows.flat(), 4);
      }
    }
  });

  test("MAML's direction is downhill on the loss after k − 1 steps", () => {
    const [task] = tasks as [Task];
    for (const at of points) {
      const after = (p: Point) => {
        const path = adaptTo(task, p, { ...settings, innerSteps: 4 });
        return lossAt(task, path.points.at(-1) as Point);
      };
      const { next } = outerStep("MAML", [task], at, { ...settings, interpolation: 1 });
      const slope = slopes(after, at);
      expectClose([next[0] - at[0], next[1] - at[1]], [-0.1 * slope[0], -0.1 * slope[1]]);
    }
  });
});

describe("by hand", () => {
  // f = x, so L = √(1 + x²) − 1, which has its gradient x/√(1 + x²) along x alone.
  const conic = { xx: 0, xy: 0, yy: 0, x: 1, y: 0, one: 0 };
  const slope: Task = { name: "", steepness: 2, conic };
  const from: Point = [Math.sqrt(3), 7]; // gradient 2·√3/2 = √3

  test("one step of each optimizer", () => {
    const one = { ...settings, innerSteps: 1 };
    const x = (optimizer: Settings["optimizer"]) =>
      (adaptTo(slope, from, { ...one, optimizer }).points[1] as Point)[0];
    expect(x("SGD")).toBeCloseTo(0.9 * Math.sqrt(3), 12);
    expect(x("SGD with momentum")).toBeCloseTo(0.9 * Math.sqrt(3), 12);
    expect(x("Adam")).toBeCloseTo(Math.sqrt(3) - 0.1, 6); // the first step is α·sign(g)
    expect(x("RMSProp")).toBeCloseTo(Math.sqrt(3) - 0.1 / Math.sqrt(0.1), 6);
  });

  test("Reptile goes the share β of the way, the others of one step", () => {
    const { points: path } = adaptTo(slope, from, settings);
    const [first, second, fourth, last] = [0, 1, 4, 5].map((i) => (path[i] as Point)[0]) as [
      number,
      number,
      number,
      number,
    ];
    const moved = (algorithm: (typeof ALGORITHMS)[number]) =>
      outerStep(algorithm, [slope], from, settings).next[0] - first;
    expect(moved("Reptile")).toBeCloseTo(0.5 * (last - first), 12);
    expect(moved("FOMAML")).toBeCloseTo(0.5 * (last - fourth), 12);
    expect(moved("Joint training")).toBeCloseTo(0.5 * (second - first), 12);
  });
});

test("with one inner step of SGD the four are one", () => {
  const one = { ...settings, innerSteps: 1 };
  for (const { tasks: all } of SCENES) {
    for (const at of points) {
      const [first, ...others] = ALGORITHMS.map((a) => outerStep(a, all, at, one).next);
      for (const other of others) expectClose(other, first as Point, 12);
    }
  }
});

test("β = 0 stays, and β = 1 on one task is its φ", () => {
  const [task] = tasks as [Task];
  const at = points[0] as Point;
  expect(outerStep("Reptile", [task], at, { ...settings, interpolation: 0 }).next).toEqual(at);
  const { paths, next } = outerStep("Reptile", [task], at, { ...settings, interpolation: 1 });
  expectClose(next, paths[0]?.points.at(-1) as Point, 12);
});

test("the point near all manifolds, where it is known", () => {
  const parallel = (one: number): Task => ({
    name: "",
    steepness: 1,
    conic: { xx: 0, xy: 0, yy: 0, x: 0.6, y: 0.8, one },
  });
  // Two parallel lines at distances 1 and −0.4 from the origin: halfway, at 0.3.
  const manifolds = [parallel(-1), parallel(0.4)].map(solutionManifold);
  const [x, y] = pointNearAll(manifolds, [0, 0]);
  expect(0.6 * x + 0.8 * y).toBeCloseTo(0.3, 2);
  expect(Math.hypot(x, y)).toBeCloseTo(0.3, 1); // and of all these the one nearest to the start
  expect(meanSquaredDistance(manifolds, [0, 0])).toBeCloseTo((1 + 0.16) / 2, 3);
});

/** Follows one algorithm for many outer steps. */
function follow(algorithm: (typeof ALGORITHMS)[number], scene: Scene, with_: Settings): Point {
  let theta = scene.start;
  for (let i = 0; i < 3000; i++) theta = outerStep(algorithm, scene.tasks, theta, with_).next;
  return theta;
}

test.each(SCENES)("$name: Reptile ends near the point near all manifolds", (scene) => {
  const adapting: Settings = { ...settings, innerSteps: 40, learningRate: 0.2, interpolation: 0.1 };
  const manifolds = scene.tasks.map(solutionManifold);
  const reptile = follow("Reptile", scene, adapting);
  const joint = follow("Joint training", scene, adapting);
  const least = meanSquaredDistance(manifolds, pointNearAll(manifolds, reptile));
  expect(meanSquaredDistance(manifolds, reptile)).toBeLessThan(1.15 * least + 1e-3);
  const lossAfter = (theta: Point) => meanLosses(scene.tasks, theta, settings).after;
  expect(lossAfter(reptile)).toBeLessThanOrEqual(lossAfter(joint) + 1e-6);
});
