/**
 * Tasks in the plane: each has a curve of perfect solutions, its solution manifold (paper,
 * Sec. 5.2), and a loss that rises with the distance from it.
 */

export type Point = readonly [x: number, y: number];
/** A symmetric or general 2×2 matrix, row after row. */
export type Matrix = readonly [number, number, number, number];

/**
 * A task whose solution manifold is the conic f = 0 with
 * f(x, y) = ½·xx·x² + xy·x·y + ½·yy·y² + x·x + y·y + one, and whose loss is
 * L = steepness · (√(1 + f²) − 1): a parabola near the manifold, a slope far from it.
 */
export interface Task {
  name: string;
  steepness: number;
  conic: { xx: number; xy: number; yy: number; x: number; y: number; one: number };
}

/** Value of f, positive on one side of the manifold and negative on the other. */
export function levelAt({ conic: c }: Task, [x, y]: Point): number {
  return 0.5 * c.xx * x * x + c.xy * x * y + 0.5 * c.yy * y * y + c.x * x + c.y * y + c.one;
}

function slopeOfLevel({ conic: c }: Task, [x, y]: Point): Point {
  return [c.xx * x + c.xy * y + c.x, c.xy * x + c.yy * y + c.y];
}

export function lossAt(task: Task, at: Point): number {
  return task.steepness * (Math.hypot(1, levelAt(task, at)) - 1);
}

/** ∇L = s·f/√(1 + f²)·∇f. */
export function gradientAt(task: Task, at: Point): Point {
  const f = levelAt(task, at);
  const [fx, fy] = slopeOfLevel(task, at);
  const factor = (task.steepness * f) / Math.hypot(1, f);
  return [factor * fx, factor * fy];
}

/** ∇²L = s·(∇f∇fᵀ/(1 + f²)^{3/2} + f/√(1 + f²)·∇²f). */
export function hessianAt(task: Task, at: Point): Matrix {
  const f = levelAt(task, at);
  const [fx, fy] = slopeOfLevel(task, at);
  const { xx, xy, yy } = task.conic;
  const root = Math.hypot(1, f);
  const [outer, curved] = [task.steepness / root ** 3, (task.steepness * f) / root];
  const mixed = outer * fx * fy + curved * xy;
  return [outer * fx * fx + curved * xx, mixed, mixed, outer * fy * fy + curved * yy];
}

function line(name: string, steepness: number, angle: number, offset: number): Task {
  const [x, y] = [Math.cos(angle), Math.sin(angle)];
  return { name, steepness, conic: { xx: 0, xy: 0, yy: 0, x, y, one: -offset } };
}

/** f is about the distance from the circle. */
function circle(name: string, steepness: number, [x, y]: Point, radius: number): Task {
  const one = (x * x + y * y - radius * radius) / (2 * radius);
  const conic = { xx: 1 / radius, xy: 0, yy: 1 / radius, x: -x / radius, y: -y / radius, one };
  return { name, steepness, conic };
}

/** y = bend·x² + height. */
function parabola(name: string, steepness: number, bend: number, height: number): Task {
  return { name, steepness, conic: { xx: -2 * bend, xy: 0, yy: 0, x: 0, y: 1, one: -height } };
}

export interface Scene {
  name: string;
  tasks: readonly Task[];
  start: Point;
}

/** The plane that is shown: x and y from −EXTENT to EXTENT. */
export const EXTENT = 3;

export const SCENES: readonly Scene[] = [
  {
    name: "Three curves",
    tasks: [
      circle("Task A", 1, [-1.1, 0.4], 1.5),
      parabola("Task B", 2.5, 0.45, -1.7),
      line("Task C", 0.5, 0.5, 1.5),
    ],
    start: [-2.2, -2],
  },
  {
    name: "Two curves (the paper's Fig. 2)",
    tasks: [circle("Task A", 1, [-2.4, 2.6], 3), circle("Task B", 1, [2.6, -2.4], 3)],
    start: [-2, -1.6],
  },
  {
    name: "A steep and two gentle lines",
    tasks: [line("Task A", 4, 1.2, -1.2), line("Task B", 0.5, 0.1, 1), line("Task C", 0.5, 2.2, 1)],
    start: [-2.2, 2.2],
  },
];
