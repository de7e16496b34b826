/** Curves of equal value, as segments, and the point that is nearest to several of them. */

import { EXTENT, levelAt, type Point, type Task } from "./landscape";

export type Segment = readonly [Point, Point];

/** The line value = level within the plane, by marching squares on a grid of `cells` squares. */
export function levelLine(value: (at: Point) => number, level: number, cells = 96): Segment[] {
  const step = (2 * EXTENT) / cells;
  const grid = Array.from({ length: cells + 1 }, (_, row) =>
    Array.from({ length: cells + 1 }, (_, column) => {
      const at: Point = [column * step - EXTENT, row * step - EXTENT];
      return { at, height: value(at) - level };
    }),
  );
  const segments: Segment[] = [];
  for (let row = 0; row < cells; row++) {
    for (let column = 0; column < cells; column++) {
      const corners = [
        grid[row]?.[column],
        grid[row]?.[column + 1],
        grid[row + 1]?.[column + 1],
        grid[row + 1]?.[column],
      ] as { at: Point; height: number }[];
      const crossings = corners.flatMap((a, i) => {
        const b = corners[(i + 1) % 4] as typeof a;
        if (a.height < 0 === b.height < 0) return [];
        const t = a.height / (a.height - b.height);
        return [[a.at[0] + t * (b.at[0] - a.at[0]), a.at[1] + t * (b.at[1] - a.at[1])] as Point];
      });
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        segments.push([crossings[i] as Point, crossings[i + 1] as Point]);
      }
    }
  }
  return segments;
}

export function solutionManifold(task: Task): Segment[] {
  return levelLine((at) => levelAt(task, at), 0);
}

/** Distance from a point to the nearest of the segments. */
export function distanceTo(segments: readonly Segment[], [x, y]: Point): number {
  let nearest = Number.POSITIVE_INFINITY;
  for (const [[ax, ay], [bx, by]] of segments) {
    const [dx, dy] = [bx - ax, by - ay];
    const along = ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1);
    const t = Math.min(Math.max(along, 0), 1);
    nearest = Math.min(nearest, Math.hypot(x - ax - t * dx, y - ay - t * dy));
  }
  return nearest;
}

export function meanSquaredDistance(manifolds: readonly Segment[][], at: Point): number {
  return manifolds.reduce((sum, m) => sum + distanceTo(m, at) ** 2, 0) / manifolds.length;
}

/**
 * The point of least mean squared distance from the manifolds, which Reptile approaches as it
 * adapts to each task fully (paper, Sec. 5.2). Where there are several such points, the one
 * nearest to `from`.
 */
export function pointNearAll(manifolds: readonly Segment[][], from: Point): Point {
  let best: Point = from;
  let least = Number.POSITIVE_INFINITY;
  const consider = (at: Point) => {
    const value =
      meanSquaredDistance(manifolds, at) + 1e-3 * Math.hypot(at[0] - from[0], at[1] - from[1]);
    if (value < least) [least, best] = [value, at];
  };
  for (let radius = EXTENT; radius > 1e-3; radius /= 3) {
    const [x, y] = radius === EXTENT ? [0, 0] : best;
    for (let i = -10; i <= 10; i++) {
      for (let j = -10; j <= 10; j++) {
        const at: Point = [x + (radius * i) / 10, y + (radius * j) / 10];
        if (Math.max(Math.abs(at[0]), Math.abs(at[1])) <= EXTENT) consider(at);
      }
    }
  }
  return best;
}
