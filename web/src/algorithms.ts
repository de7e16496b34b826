/** The meta-learning algorithms on tasks of the plane, with whole gradients instead of batches. */

import { gradientAt, hessianAt, lossAt, type Matrix, type Point, type Task } from "./landscape";

export const OPTIMIZERS = ["SGD", "SGD with momentum", "RMSProp", "Adam"] as const;
export type Optimizer = (typeof OPTIMIZERS)[number];

export const ALGORITHMS = ["Reptile", "FOMAML", "MAML", "Joint training"] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

export interface Settings {
  optimizer: Optimizer;
  /** k, inner steps on each task. */
  innerSteps: number;
  /** α, the inner learning rate. */
  learningRate: number;
  /** β, the share of the way that θ is moved: the outer step size. */
  interpolation: number;
}

const MOMENTUM = 0.9;
const RHO = 0.9;
const BETA2 = 0.999;
const EPSILON = 1e-8;

/** Points of the inner loop, θ = φ₀ to φ_k, and dφ_j/dθ of each. */
export interface InnerPath {
  points: Point[];
  jacobians: Matrix[];
}

const IDENTITY: Matrix = [1, 0, 0, 1];
const ZERO: Matrix = [0, 0, 0, 0];

/**
 * k optimizer steps on one task. The moments start from zero for each task.
 *
 * The Jacobian dφ_j/dθ is carried along exactly, through the moments too: with SGD it is the
 * product of (I − αH) that MAML differentiates through.
 */
export function adaptTo(task: Task, theta: Point, settings: Settings): InnerPath {
  const points: Point[] = [theta];
  const jacobians: Matrix[] = [IDENTITY];
  let state: State = { moment: [0, 0], momentJacobian: ZERO };
  for (let step = 1; step <= settings.innerSteps; step++) {
    const [at, jacobian] = [points.at(-1) as Point, jacobians.at(-1) as Matrix];
    const g = gradientAt(task, at);
    const dg = multiply(hessianAt(task, at), jacobian);
    const moved = RULES[settings.optimizer](g, dg, state, step);
    state = moved.state;
    const a = settings.learningRate;
    points.push([at[0] - a * moved.direction[0], at[1] - a * moved.direction[1]]);
    jacobians.push(
      jacobian.map((j, i) => j - a * (moved.jacobian[i] as number)) as unknown as Matrix,
    );
  }
  return { points, jacobians };
}

interface State {
  moment: Point;
  momentJacobian: Matrix;
}

/** An optimizer's direction for a gradient, with the derivatives of both with respect to θ. */
type Rule = (
  gradient: Point,
  gradientJacobian: Matrix,
  state: State,
  step: number,
) => { direction: Point; jacobian: Matrix; state: State };

const RULES: Record<Optimizer, Rule> = {
  SGD: (direction, jacobian, state) => ({ direction, jacobian, state }),
  "SGD with momentum": (g, dg, { moment, momentJacobian }) => {
    const m = moment.map((old, i) => MOMENTUM * old + (g[i] as number)) as unknown as Point;
    const dm = momentJacobian.map((d, i) => MOMENTUM * d + (dg[i] as number)) as unknown as Matrix;
    return { direction: m, jacobian: dm, state: { moment: m, momentJacobian: dm } };
  },
  RMSProp: (g, dg, state) => scaledByRoot(g, dg, state, RHO, 1),
  // β1 = 0, as in the paper.
  Adam: (g, dg, state, step) => scaledByRoot(g, dg, state, BETA2, Math.sqrt(1 - BETA2 ** step)),
};

/** v ← ρ·v + (1 − ρ)·g²; direction c·g/(√v + ε). */
function scaledByRoot(g: Point, dg: Matrix, old: State, rho: number, c: number) {
  const moment: [number, number] = [0, 0];
  const direction: [number, number] = [0, 0];
  const momentJacobian: [number, number, number, number] = [0, 0, 0, 0];
  const jacobian: [number, number, number, number] = [0, 0, 0, 0];
  for (const i of [0, 1] as const) {
    const v = rho * old.moment[i] + (1 - rho) * g[i] ** 2;
    const root = Math.sqrt(v);
    moment[i] = v;
    direction[i] = (c * g[i]) / (root + EPSILON);
    for (const j of [2 * i, 2 * i + 1] as (0 | 1 | 2 | 3)[]) {
      const dv = rho * old.momentJacobian[j] + 2 * (1 - rho) * g[i] * dg[j];
      momentJacobian[j] = dv;
      const through = root > 0 ? (g[i] * dv) / (2 * root * (root + EPSILON) ** 2) : 0;
      jacobian[j] = c * (dg[j] / (root + EPSILON) - through);
    }
  }
  return { direction, jacobian, state: { moment, momentJacobian } };
}

/**
 * The direction d that one task contributes; the outer update is θ ← θ + β · mean of d.
 *
 * - Reptile: φ_k − θ.
 * - FOMAML: φ_k − φ_{k−1}, the last step's change.
 * - MAML: −α · (dφ_{k−1}/dθ)ᵀ ∇L(φ_{k−1}), the gradient of the loss before that last step through
 *   the k − 1 steps before it, times α so that β means the same everywhere (paper, Sec. 5.1).
 * - Joint training: the first step's change, as with k = 1.
 */
export function direction(
  algorithm: Algorithm,
  task: Task,
  path: InnerPath,
  { learningRate }: Settings,
): Point {
  const { points, jacobians } = path;
  const change = (from: number, to: number): Point => {
    const [a, b] = [points[from] as Point, points[to] as Point];
    return [b[0] - a[0], b[1] - a[1]];
  };
  const last = points.length - 1;
  if (algorithm === "Reptile") return change(0, last);
  if (algorithm === "FOMAML") return change(last - 1, last);
  if (algorithm === "Joint training") return change(0, 1);
  const [gx, gy] = gradientAt(task, points[last - 1] as Point);
  const [a, b, c, d] = jacobians[last - 1] as Matrix;
  return [-learningRate * (a * gx + c * gy), -learningRate * (b * gx + d * gy)];
}

/** One outer step from θ on the given tasks: the inner paths and the new θ. */
export function outerStep(
  algorithm: Algorithm,
  tasks: readonly Task[],
  theta: Point,
  settings: Settings,
): { paths: InnerPath[]; next: Point } {
  const inner = algorithm === "Joint training" ? { ...settings, innerSteps: 1 } : settings;
  const paths = tasks.map((task) => adaptTo(task, theta, inner));
  const next = paths.reduce<Point>(([x, y], path, i) => {
    const [dx, dy] = direction(algorithm, tasks[i] as Task, path, inner);
    const share = settings.interpolation / tasks.length;
    return [x + share * dx, y + share * dy];
  }, theta);
  return { paths, next };
}

/** Mean loss over the tasks at θ, and after adapting from θ to each. */
export function meanLosses(tasks: readonly Task[], theta: Point, settings: Settings) {
  let [before, after] = [0, 0];
  for (const task of tasks) {
    before += lossAt(task, theta) / tasks.length;
    const { points } = adaptTo(task, theta, settings);
    after += lossAt(task, points.at(-1) as Point) / tasks.length;
  }
  return { before, after };
}

function multiply([a, b, c, d]: Matrix, [e, f, g, h]: Matrix): Matrix {
  return [a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h];
}
