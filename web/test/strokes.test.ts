import { describe, expect, test } from "vitest";
import recorded from "../src/drawings.json";
import { type Drawing, IMAGE_SIZE, PEN_WIDTH, placeLikeOmniglot, rasterize } from "../src/strokes";

const drawings = Object.entries(recorded as Record<string, Drawing[]>).flatMap(([name, variants]) =>
  variants.map((variant, i): [string, Drawing] => [
    `${name} ${i + 1}`,
    variant.map((stroke) => stroke.map((value) => value / 1000)),
  ]),
);

/** Box of the ink in pixels: first and last column, first and last row. */
function inkBox(image: Float64Array): [number, number, number, number] {
  const ink = [...image.keys()].filter((i) => image[i] === 0);
  const columns = ink.map((i) => i % IMAGE_SIZE);
  const rows = ink.map((i) => Math.floor(i / IMAGE_SIZE));
  return [Math.min(...columns), Math.max(...columns), Math.min(...rows), Math.max(...rows)];
}

const share = (image: Float64Array) => image.filter((pixel) => pixel === 0).length / image.length;

test("nothing drawn is all paper", () => {
  expect(rasterize([]).every((pixel) => pixel === 1)).toBe(true);
});

test("a line is sampled where NEAREST samples", () => {
  // By hand: the line lies on the canvas' row 0.48 · 105 = 50.4 and covers the rows whose centers
  // are at most 2.7 away: 48 … 52. Of these NEAREST takes 50 (image row 13; rows 12 and 14 are
  // 46 and 54).
  const image = rasterize([[0.2, 0.5, 0.8, 0.5]]);
  const [left, right, top, bottom] = inkBox(image);
  expect([top, bottom]).toEqual([13, 13]);
  // Centers of columns between (0.48 − 0.3) · 105 − 2.7 = 16.2 and (0.48 + 0.3) · 105 + 2.7 = 84.6:
  // 16 … 84. NEAREST takes 16 for the image's column 4 and 84 for 22.
  expect([left, right]).toEqual([4, 22]);
});

describe("placing", () => {
  const size = (drawing: Drawing) => {
    const values = drawing.flat();
    return Math.max(...values) - Math.min(...values) + PEN_WIDTH;
  };
  const square = (from: number, to: number) => [[from, from, to, from, to, to, from, to]];

  test("moves every drawing to the middle of Omniglot's", () => {
    const [stroke] = placeLikeOmniglot(square(0.1, 0.6)) as [number[]];
    expect((Math.min(...stroke) + Math.max(...stroke)) / 2).toBeCloseTo(0.48, 10);
  });

  test("keeps a size that Omniglot's have and brings others there", () => {
    expect(size(placeLikeOmniglot(square(0.1, 0.6)))).toBeCloseTo(0.5 + PEN_WIDTH, 10);
    expect(size(placeLikeOmniglot(square(0, 1)))).toBeCloseTo(0.84, 10);
    expect(size(placeLikeOmniglot(square(0.4, 0.6)))).toBeCloseTo(0.41, 10);
  });

  test("keeps proportions, and does not blow up a dot", () => {
    const [flat] = placeLikeOmniglot([[0, 0.2, 1, 0.3]]) as [number[]];
    const [x0, y0, x1, y1] = flat as [number, number, number, number];
    expect((y1 - y0) / (x1 - x0)).toBeCloseTo(0.1, 10);
    expect(inkBox(rasterize([[0.9, 0.9]]))).toEqual([13, 13, 13, 13]);
    expect(size(placeLikeOmniglot(square(0.49, 0.5)))).toBeCloseTo(0.03 + PEN_WIDTH, 10);
  });

  test("a drawing looks the same wherever on the cell it stands", () => {
    const moved = square(0.3, 0.8).map((stroke) => stroke.map((value) => value - 0.25));
    expect(rasterize(moved)).toEqual(rasterize(square(0.3, 0.8)));
  });
});

test.each(drawings)("%s looks like an image of Omniglot", (_, drawing) => {
  const image = rasterize(drawing);
  expect(new Set(image)).toEqual(new Set([0, 1]));
  // Between the 1st and the 99th percentile of Omniglot (README.md).
  expect(share(image)).toBeGreaterThan(0.01);
  expect(share(image)).toBeLessThan(0.155);
  const [left, right, top, bottom] = inkBox(image);
  const longest = (Math.max(right - left, bottom - top) + 1) / IMAGE_SIZE;
  expect(longest).toBeGreaterThan(0.36);
  expect(longest).toBeLessThan(0.89);
});

test("on the whole there is as much ink as in Omniglot", () => {
  const mean = drawings.reduce((sum, [, d]) => sum + share(rasterize(d)), 0) / drawings.length;
  expect(mean).toBeGreaterThan(0.0625); // quartiles of Omniglot
  expect(mean).toBeLessThan(0.0995);
});
