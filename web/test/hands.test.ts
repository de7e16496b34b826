import { expect, test } from "vitest";
import { drawnBy, measureHands } from "../bench/hands";
import committed from "../src/hands.json";
import { model } from "./support/exported";

test("a hand draws the same for the same numbers, and otherwise differently", () => {
  const hand = { slant: 0.2, rotation: 0, size: 1, width: 1, tremor: 0.01 };
  const drawing = [[0.2, 0.2, 0.5, 0.8, 0.8, 0.2]];
  const drawn = (number: number) => drawnBy(hand, drawing, () => number);
  expect(drawn(0.3)).toEqual(drawn(0.3));
  expect(drawn(0.3)).not.toEqual(drawn(0.6));
  const still = drawnBy({ ...hand, tremor: 0, slant: 0.2 }, drawing, () => 0)[0] as number[];
  [0.26, 0.2, 0.44, 0.8, 0.86, 0.2].forEach((value, i) => {
    expect(still[i]).toBeCloseTo(value, 9); // the top moves to the right, by slant times its height
  });
});

test("the committed accuracy is that of the committed network", () => {
  const measured = measureHands(model);
  expect(measured.tasks).toBeGreaterThanOrEqual(30);
  expect(measured.mean).toBeCloseTo(committed.mean, 2);
  expect(measured.interval95).toBeCloseTo(committed.interval95, 2);
});
