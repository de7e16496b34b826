/** One cell to draw in, by mouse, touch, pen or keyboard, with undo. */

import { type Drawing, IMAGE_SIZE, PEN_WIDTH, rasterize } from "./strokes";

const KEY_STEP = 0.04;
const SMALL_KEY_STEP = 0.01;
const ARROWS: Record<string, readonly [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

/** Draws the strokes on a context whose unit square is the cell. */
export function paintStrokes(context: CanvasRenderingContext2D, drawing: Drawing): void {
  context.lineWidth = PEN_WIDTH;
  context.lineCap = context.lineJoin = "round";
  for (const [x, y, ...rest] of drawing as [number, number, ...number[]][]) {
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x, y); // a dot, where there is nothing else
    for (let i = 0; i + 1 < rest.length; i += 2) {
      context.lineTo(rest[i] as number, rest[i + 1] as number);
    }
    context.stroke();
  }
}

export class Cell {
  readonly element: HTMLElement;
  private readonly paper: HTMLElement;
  private readonly canvas: HTMLCanvasElement;
  private readonly seen: HTMLCanvasElement;
  private readonly hint: HTMLElement;
  private readonly undoButton: HTMLButtonElement;
  private readonly clearButton: HTMLButtonElement;
  /** Every state of the drawing so far; the last one is what is there. */
  private readonly history: Drawing[] = [[]];
  /** The stroke being drawn, and by which pointer (or the keyboard). */
  private stroke: number[] | null = null;
  private pointer: number | "keyboard" | null = null;
  private cursor: [number, number] = [0.5, 0.5];

  /**
   * @param template The cell's markup.
   * @param label What stands above it, such as a class's number.
   * @param name What a screen reader calls it.
   * @param onChange Called after each change, while a stroke is being drawn too.
   * @param example Returns a drawing to put in.
   */
  constructor(
    template: HTMLTemplateElement,
    label: string,
    name: string,
    private readonly onChange: () => void,
    private readonly example: () => Drawing,
  ) {
    const fragment = template.content.cloneNode(true) as DocumentFragment;
    const find = <T extends Element>(selector: string) => fragment.querySelector(selector) as T;
    this.element = find(".cell");
    this.paper = find(".paper");
    this.canvas = find(".paper canvas");
    this.seen = find(".seen");
    this.hint = find(".hint");
    this.undoButton = find(".undo");
    this.clearButton = find(".clear");
    find(".label").textContent = label;
    this.paper.setAttribute("aria-label", `${name}: arrows move the pen, space draws, E: example`);
    this.paper.tabIndex = 0;
    this.seen.setAttribute("aria-hidden", "true");
    const buttons: [HTMLButtonElement, () => void][] = [
      [this.undoButton, () => this.undo()],
      [this.clearButton, () => this.clear()],
      [find(".example"), () => this.set(this.example())],
    ];
    for (const [button, action] of buttons) {
      button.setAttribute("aria-label", `${button.textContent}: ${name}`);
      button.addEventListener("click", action);
    }
    this.paper.addEventListener("pointerdown", (event) => this.pointerDown(event));
    this.paper.addEventListener("pointermove", (event) => this.pointerMove(event));
    for (const type of ["pointerup", "pointercancel", "lostpointercapture"] as const) {
      this.paper.addEventListener(type, (event) => {
        if (event.pointerId === this.pointer) this.liftPen();
      });
    }
    this.paper.addEventListener("keydown", (event) => this.keyDown(event));
    this.paper.addEventListener("focus", () => this.paint());
    this.paper.addEventListener("blur", () => {
      if (this.pointer === "keyboard") this.liftPen();
      this.paint();
    });
    new ResizeObserver(() => this.paint()).observe(this.paper);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
  }

  /** The drawing, with the stroke that is being drawn. */
  get drawing(): Drawing {
    const finished = this.history.at(-1) as Drawing;
    return this.stroke ? [...finished, this.stroke] : finished;
  }

  /** What the network sees, or null while nothing is drawn. */
  image(): Float64Array | null {
    return this.drawing.length > 0 ? rasterize(this.drawing) : null;
  }

  /** Puts a drawing in place of what is there; undo brings that back. */
  set(drawing: Drawing): void {
    this.stroke = this.pointer = null;
    if (drawing.length > 0 || this.drawing.length > 0) this.history.push(drawing);
    this.changed();
  }

  clear(): void {
    if (this.drawing.length > 0) this.set([]);
  }

  /** Takes the last stroke back, or what replaced or cleared the drawing. */
  undo(): void {
    if (this.stroke) this.stroke = this.pointer = null;
    else if (this.history.length > 1) this.history.pop();
    this.changed();
  }

  focus(): void {
    this.paper.focus();
  }

  private pointerDown(event: PointerEvent): void {
    if (event.button !== 0 || typeof this.pointer === "number") return;
    if (this.pointer === "keyboard") this.liftPen();
    event.preventDefault(); // no text selection; the focus is set here instead
    this.paper.focus({ preventScroll: true });
    this.paper.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    this.stroke = [...this.position(event)];
    this.changed();
  }

  private pointerMove(event: PointerEvent): void {
    if (!this.stroke || event.pointerId !== this.pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length > 0 ? events : [event]) {
      this.stroke.push(...this.position(each));
    }
    this.changed();
  }

  private position(event: PointerEvent): [number, number] {
    const box = this.paper.getBoundingClientRect();
    const inside = (value: number) => Math.min(Math.max(value, 0), 1);
    this.cursor = [
      inside((event.clientX - box.left) / box.width),
      inside((event.clientY - box.top) / box.height),
    ];
    return this.cursor;
  }

  private liftPen(): void {
    if (this.stroke) this.history.push(this.drawing);
    this.stroke = this.pointer = null;
    this.changed();
  }

  private keyDown(event: KeyboardEvent): void {
    const withControl = event.ctrlKey || event.metaKey;
    if (event.altKey || (withControl && event.key.toLowerCase() !== "z")) return;
    const arrow = ARROWS[event.key];
    if (arrow) this.moveCursor(arrow, event.shiftKey ? SMALL_KEY_STEP : KEY_STEP);
    else if (event.key === " ") this.togglePen();
    else if (event.key === "Escape" && this.pointer === "keyboard") this.liftPen();
    else if (event.key === "Backspace" || withControl) this.undo();
    else if (event.key === "Delete") this.clear();
    else if (event.key === "e" || event.key === "E") this.set(this.example());
    else return;
    event.preventDefault();
  }

  private moveCursor([dx, dy]: readonly [number, number], step: number): void {
    const move = (value: number, by: number) => Math.min(Math.max(value + by * step, 0.02), 0.98);
    this.cursor = [move(this.cursor[0], dx), move(this.cursor[1], dy)];
    if (this.pointer === "keyboard") this.stroke?.push(...this.cursor);
    this.changed();
  }

  private togglePen(): void {
    if (this.pointer === "keyboard") {
      this.liftPen();
    } else if (this.pointer === null) {
      this.pointer = "keyboard";
      this.stroke = [...this.cursor];
      this.changed();
    }
  }

  private changed(): void {
    this.undoButton.disabled = this.history.length === 1 && !this.stroke;
    this.clearButton.disabled = this.drawing.length === 0;
    this.hint.hidden = this.drawing.length > 0;
    this.paint();
    this.onChange();
  }

  private paint(): void {
    const size = Math.max(1, Math.round(this.paper.clientWidth * devicePixelRatio));
    if (this.canvas.width !== size) this.canvas.width = this.canvas.height = size;
    const context = this.canvas.getContext("2d") as CanvasRenderingContext2D;
    const style = getComputedStyle(this.paper);
    context.setTransform(size, 0, 0, size, 0, 0);
    context.clearRect(0, 0, 1, 1);
    context.strokeStyle = style.color;
    paintStrokes(context, this.drawing);
    if (this.paper.matches(":focus-visible")) this.paintCursor(context, style);
    this.paintSeen(style.color);
  }

  private paintCursor(context: CanvasRenderingContext2D, style: CSSStyleDeclaration): void {
    const [x, y] = this.cursor;
    context.strokeStyle = context.fillStyle = style.getPropertyValue("--accent");
    context.lineWidth = 0.008;
    context.beginPath();
    context.arc(x, y, PEN_WIDTH * 0.8, 0, 2 * Math.PI);
    if (this.pointer === "keyboard") context.fill();
    else context.stroke();
  }

  /** The 28×28 image, pixel by pixel, in the color of the ink. */
  private paintSeen(ink: string): void {
    const context = this.seen.getContext("2d") as CanvasRenderingContext2D;
    context.clearRect(0, 0, IMAGE_SIZE, IMAGE_SIZE);
    context.fillStyle = ink;
    this.image()?.forEach((paper, i) => {
      if (!paper) context.fillRect(i % IMAGE_SIZE, Math.floor(i / IMAGE_SIZE), 1, 1);
    });
  }
}
