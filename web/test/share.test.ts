import { expect, test } from "vitest";
import recorded from "../src/drawings.json";
import { decodeDrawings, encodeDrawings } from "../src/share";
import { type Drawing, rasterize } from "../src/strokes";

const drawings = Object.values(recorded as Record<string, Drawing[]>).map(([drawing]) =>
  (drawing as Drawing).map((stroke) => stroke.map((value) => value / 1000)),
);

test("drawings come back from a link, to a thousandth of the cell", () => {
  const text = encodeDrawings([...drawings, []]);
  expect(text).toMatch(/^[0-9a-z._]+$/);
  expect(decodeDrawings(text, drawings.length + 1)).toEqual([...drawings, []]);
});

test("points very near each other are left out, and the image stays", () => {
  const [from, to] = [0.2, 0.8];
  const slow = Array.from({ length: 601 }, (_, i) => from + ((to - from) * i) / 600);
  const drawing = [slow.flatMap((x) => [x, x])];
  const text = encodeDrawings([drawing]);
  expect(text.length).toBeLessThan(4 * 100);
  const [received] = decodeDrawings(text, 1) as [Drawing];
  expect(received[0]?.slice(-2)).toEqual([to, to]);
  const different = rasterize(received).filter((pixel, i) => pixel !== rasterize(drawing)[i]);
  expect(different.length).toBeLessThan(3);
});

test.each(["", "abc", "zz", "abcd", "abcd_abcd_abcd", "abcd__é_", "<b>___"])(
  "what is no link of four drawings is refused: %s",
  (text) => {
    expect(decodeDrawings(text, 4)).toBeNull();
  },
);
