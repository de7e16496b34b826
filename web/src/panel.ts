/** One plane of the figure: the tasks' losses, θ with its inner paths, and the way it has come. */

import type { InnerPath } from "./algorithms";
import { EXTENT, lossAt, type Point, type Scene } from "./landscape";
import { levelLine, type Segment } from "./manifolds";

const KEY_STEP = 0.1;
const SMALL_KEY_STEP = 0.02;
const ARROWS: Record<string, Point> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, 1],
  ArrowDown: [0, -1],
};
/** Losses whose contours are drawn, as multiples of a task's steepness. */
const LEVELS = [0.1, 0.35, 0.7, 1.15, 1.7, 2.4];

/** A task's lines: its solution manifold and the contours of its loss. */
export interface TaskLines {
  manifold: Segment[];
  contours: Segment[][];
}

export function linesOf(scene: Scene, manifolds: Segment[][]): TaskLines[] {
  return scene.tasks.map((task, i) => ({
    manifold: manifolds[i] as Segment[],
    contours: LEVELS.map((level) => levelLine((at) => lossAt(task, at), level * task.steepness)),
  }));
}

/** What a panel shows next to the tasks. */
export interface View {
  theta: Point;
  trail: readonly Point[];
  paths: readonly InnerPath[];
  /** Number of the task of each path. */
  tasks: readonly number[];
  next: Point;
  star: Point;
}

export class Panel {
  readonly element = document.createElement("article");
  private readonly plane = document.createElement("div");
  private readonly ground = document.createElement("canvas");
  private readonly above = document.createElement("canvas");
  private readonly values: HTMLElement[];
  private lines: readonly TaskLines[] = [];
  private view: View | null = null;

  /**
   * @param name The algorithm.
   * @param rule What it does, in a line.
   * @param variable The CSS variable of its color.
   * @param facts Names of the values that `show` shows below the plane.
   * @param onMove Called with where θ is moved to.
   */
  constructor(
    readonly name: string,
    rule: string,
    private readonly variable: string,
    facts: readonly string[],
    private readonly onMove: (to: Point) => void,
  ) {
    this.element.className = "panel";
    this.element.style.setProperty("--algorithm", `var(${variable})`);
    this.plane.className = "plane";
    this.plane.tabIndex = 0;
    this.plane.setAttribute("role", "application");
    this.plane.setAttribute("aria-label", `${name}: arrow keys move θ`);
    this.plane.append(this.ground, this.above);
    const list = document.createElement("dl");
    this.values = facts.map((fact) => {
      const row = document.createElement("div");
      const value = document.createElement("dd");
      row.append(Object.assign(document.createElement("dt"), { textContent: fact }), value);
      list.append(row);
      return value;
    });
    const title = Object.assign(document.createElement("h2"), { textContent: name });
    const line = Object.assign(document.createElement("p"), { textContent: rule });
    this.element.append(title, line, this.plane, list);
    this.plane.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      this.plane.focus({ preventScroll: true });
      this.plane.setPointerCapture(event.pointerId);
      this.moveTo(event);
    });
    this.plane.addEventListener("pointermove", (event) => {
      if (this.plane.hasPointerCapture(event.pointerId)) this.moveTo(event);
    });
    this.plane.addEventListener("keydown", (event) => {
      const arrow = ARROWS[event.key];
      if (!arrow || !this.view || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const step = event.shiftKey ? SMALL_KEY_STEP : KEY_STEP;
      const [x, y] = this.view.theta;
      this.onMove(inside([x + arrow[0] * step, y + arrow[1] * step]));
    });
    new ResizeObserver(() => this.paintAll()).observe(this.plane);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paintAll());
  }

  setLines(lines: readonly TaskLines[]): void {
    this.lines = lines;
    this.paintGround();
  }

  show(view: View, facts: readonly string[]): void {
    this.view = view;
    this.values.forEach((value, i) => {
      value.textContent = facts[i] ?? "";
    });
    this.paintAbove();
  }

  /** Paints the plane into a picture. */
  paintInto(context: CanvasRenderingContext2D, left: number, top: number, size: number): void {
    context.fillStyle = this.color("--paper");
    context.fillRect(left, top, size, size);
    context.drawImage(this.ground, left, top, size, size);
    context.drawImage(this.above, left, top, size, size);
  }

  private moveTo(event: PointerEvent): void {
    const box = this.plane.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * 2 - 1;
    const y = 1 - ((event.clientY - box.top) / box.height) * 2;
    this.onMove(inside([x * EXTENT, y * EXTENT]));
  }

  private paintAll(): void {
    this.paintGround();
    this.paintAbove();
  }

  /** A cleared context on which the plane's coordinates are drawn in, and a CSS pixel in them. */
  private context(canvas: HTMLCanvasElement): [CanvasRenderingContext2D, number] {
    const size = Math.max(1, Math.round(this.plane.clientWidth * devicePixelRatio));
    if (canvas.width !== size) canvas.width = canvas.height = size;
    const context = canvas.getContext("2d") as CanvasRenderingContext2D;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, size, size);
    const scale = size / (2 * EXTENT);
    context.setTransform(scale, 0, 0, -scale, size / 2, size / 2);
    context.lineCap = context.lineJoin = "round";
    return [context, devicePixelRatio / scale];
  }

  private color(variable: string): string {
    return getComputedStyle(this.plane).getPropertyValue(variable);
  }

  private paintGround(): void {
    const [context, pixel] = this.context(this.ground);
    const stroke = (segments: readonly Segment[], width: number, opacity: number) => {
      context.lineWidth = width * pixel;
      context.globalAlpha = opacity;
      context.beginPath();
      for (const [[ax, ay], [bx, by]] of segments) {
        context.moveTo(ax, ay);
        context.lineTo(bx, by);
      }
      context.stroke();
    };
    this.lines.forEach(({ manifold, contours }, i) => {
      context.strokeStyle = this.color(`--class-${i + 1}`);
      contours.forEach((contour, level) => {
        stroke(contour, 1, 0.34 - 0.045 * level);
      });
      stroke(manifold, 8, 0.12);
      stroke(manifold, 2.5, 1);
    });
  }

  private paintAbove(): void {
    if (!this.view) return;
    const { theta, trail, paths, tasks, next, star } = this.view;
    const [context, pixel] = this.context(this.above);
    const own = this.color(this.variable);
    const line = (points: readonly Point[], color: string, width: number) => {
      context.strokeStyle = color;
      context.lineWidth = width * pixel;
      context.beginPath();
      points.forEach(([x, y], i) => {
        if (i === 0) context.moveTo(x, y);
        else context.lineTo(x, y);
      });
      context.stroke();
    };
    const dot = ([x, y]: Point, radius: number, color: string) => {
      context.fillStyle = color;
      context.beginPath();
      context.arc(x, y, radius * pixel, 0, 2 * Math.PI);
      context.fill();
    };
    this.paintStar(context, star, 8 * pixel);
    line([...trail, theta], own, 2.5);
    const ground = this.color("--paper");
    paths.forEach(({ points }, i) => {
      const color = this.color(`--class-${(tasks[i] as number) + 1}`);
      line(points, color, 1.5);
      for (const point of points.slice(1, -1)) dot(point, 1.8, color);
      dot(points.at(-1) as Point, 5, ground);
      dot(points.at(-1) as Point, 4, color);
    });
    line([theta, next], own, 4);
    dot(next, 4, own);
    dot(theta, 8.5, ground);
    dot(theta, 7, own);
  }

  private paintStar(context: CanvasRenderingContext2D, [x, y]: Point, radius: number): void {
    context.beginPath();
    for (let i = 0; i < 10; i++) {
      const r = i % 2 === 0 ? radius : 0.42 * radius;
      const angle = Math.PI / 2 + (i * Math.PI) / 5;
      context.lineTo(x + r * Math.cos(angle), y + r * Math.sin(angle));
    }
    context.closePath();
    context.fillStyle = this.color("--star");
    context.fill();
  }
}

function inside([x, y]: Point): Point {
  const clamp = (value: number) => Math.min(Math.max(value, -EXTENT), EXTENT);
  return [clamp(x), clamp(y)];
}
