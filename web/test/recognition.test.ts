/** The recorded drawings, three characters at a time: does the page's network tell them apart? */

import { expect, test } from "vitest";
import { adapt, classify } from "../src/adaptation";
import recorded from "../src/drawings.json";
import { type Drawing, rasterize } from "../src/strokes";
import { model } from "./support/exported";

const images = Object.values(recorded as Record<string, Drawing[]>).map((variants) =>
  variants.map((drawing) => rasterize(drawing.map((stroke) => stroke.map((v) => v / 1000)))),
);

test("each further drawing of one of three characters is most like it", {
  timeout: 300_000,
}, () => {
  expect(images.length).toBeGreaterThanOrEqual(12);
  let [right, all] = [0, 0];
  for (let a = 0; a < images.length; a++) {
    for (let b = a + 1; b < images.length; b++) {
      for (let c = b + 1; c < images.length; c++) {
        if ((a + b + c) % 3 !== 0) continue; // a third of them, for the sake of time
        const task = [a, b, c].map((i) => images[i] as Float64Array[]);
        const first = task.flatMap(([image]) => [...(image as Float64Array)]);
        const adapted = adapt(model, Float64Array.from(first), model.innerSteps);
        task.forEach(([, ...further], label) => {
          for (const image of further) {
            const probabilities = classify(adapted, image);
            if (probabilities.indexOf(Math.max(...probabilities)) === label) right += 1;
            all += 1;
          }
        });
      }
    }
  }
  expect(all).toBe(76 * 3 * 2);
  expect(right / all).toBeGreaterThan(0.97);
});
