/**
 * From what a hand draws to what Omniglot's images are.
 *
 * Omniglot was drawn online with a pen some 5.4 pixels wide on a canvas of 105×105 pixels of one bit,
 * and the paper takes every (105/28)th pixel of that. A drawing goes the same way here: it is
 * placed as Omniglot's drawings lie on their canvas, drawn with that pen and sampled like that.
 * README.md has the measurements behind the constants.
 */

/** A stroke's points x0, y0, x1, y1 …; (0, 0) and (1, 1) are the corners of the cell. */
export type Stroke = readonly number[];
/** A drawing: its strokes in the order they were drawn. */
export type Drawing = readonly Stroke[];

export const IMAGE_SIZE = 28;
const CANVAS_SIZE = 105;
/** Half the width of Omniglot's pen in pixels of its canvas. */
const PEN_RADIUS = 2.7;
/** The pen's width as a share of the cell. */
export const PEN_WIDTH = (2 * PEN_RADIUS) / CANVAS_SIZE;
/** Longest side of a drawing as a share of the canvas: Omniglot's 5th and 95th percentile. */
const SHORTEST = 0.41;
const LONGEST = 0.84;
/** Mean center of Omniglot's drawings, horizontal and vertical, as a share of the canvas. */
const CENTER = 0.48;
/** A dot is not blown up beyond this. */
const LARGEST_SCALE = 3;

/**
 * The image the network sees.
 *
 * @returns 28×28 pixels, row after row: 0 for ink and 1 for paper. All paper for no strokes.
 */
export function rasterize(drawing: Drawing): Float64Array {
  const image = new Float64Array(IMAGE_SIZE ** 2).fill(1);
  const canvas = drawOnCanvas(placeLikeOmniglot(drawing));
  for (let y = 0; y < IMAGE_SIZE; y++) {
    for (let x = 0; x < IMAGE_SIZE; x++) {
      if (canvas[nearest(y) * CANVAS_SIZE + nearest(x)]) image[y * IMAGE_SIZE + x] = 0;
    }
  }
  return image;
}

/** Pixel of the canvas that NEAREST takes for a pixel of the image, as Pillow does. */
function nearest(index: number): number {
  return Math.floor(((index + 0.5) * CANVAS_SIZE) / IMAGE_SIZE);
}

/** Moves and scales a drawing to where, and as large as, Omniglot's are. Keeps its proportions. */
export function placeLikeOmniglot(drawing: Drawing): Drawing {
  const xs = drawing.flatMap((stroke) => stroke.filter((_, i) => i % 2 === 0));
  const ys = drawing.flatMap((stroke) => stroke.filter((_, i) => i % 2 === 1));
  if (xs.length === 0) return drawing;
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
  const side = Math.max(right - left, bottom - top) + PEN_WIDTH;
  const wanted = Math.min(Math.max(side, SHORTEST), LONGEST);
  const scale = Math.min((wanted - PEN_WIDTH) / Math.max(side - PEN_WIDTH, 1e-6), LARGEST_SCALE);
  return drawing.map((stroke) =>
    stroke.map((value, i) => {
      const center = i % 2 === 0 ? (left + right) / 2 : (top + bottom) / 2;
      return CENTER + (value - center) * scale;
    }),
  );
}

/** One bit a pixel: ink where a pixel's center is no farther than the pen's radius from a line. */
function drawOnCanvas(drawing: Drawing): Uint8Array {
  const canvas = new Uint8Array(CANVAS_SIZE ** 2);
  for (const stroke of drawing) {
    const points = stroke.map((value) => value * CANVAS_SIZE);
    if (points.length === 2) points.push(...points); // a dot
    for (let i = 0; i + 3 < points.length; i += 2) {
      const [ax, ay, bx, by] = points.slice(i, i + 4) as [number, number, number, number];
      drawLine(canvas, ax, ay, bx, by);
    }
  }
  return canvas;
}

function drawLine(canvas: Uint8Array, ax: number, ay: number, bx: number, by: number): void {
  const first = (a: number, b: number) => Math.max(0, Math.floor(Math.min(a, b) - PEN_RADIUS));
  const last = (a: number, b: number) =>
    Math.min(CANVAS_SIZE - 1, Math.ceil(Math.max(a, b) + PEN_RADIUS));
  for (let y = first(ay, by); y <= last(ay, by); y++) {
    for (let x = first(ax, bx); x <= last(ax, bx); x++) {
      if (distanceToLine(x + 0.5, y + 0.5, ax, ay, bx, by) <= PEN_RADIUS) {
        canvas[y * CANVAS_SIZE + x] = 1;
      }
    }
  }
}

function distanceToLine(x: number, y: number, ax: number, ay: number, bx: number, by: number) {
  const [dx, dy] = [bx - ax, by - ay];
  const along = ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1);
  const t = Math.min(Math.max(along, 0), 1);
  return Math.hypot(x - ax - t * dx, y - ay - t * dy);
}
