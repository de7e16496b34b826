/** Fine-tuning, held against hand-worked steps and against the Python package. */

import { expect, test } from "vitest";
import { adamStep, adapt, classify } from "../src/adaptation";
import { differences } from "../src/check";
import { readModel, readPixels } from "../src/model";
import { description, file, model, reference } from "./support/exported";

test("Adam's step is Keras', with the moments it starts from", () => {
  // By hand: t = 2, g = 3, v = 0.5·4 + 0.5·9 = 6.5, lr·√(1 − 0.25) = 0.1·√0.75.
  const weights = Float64Array.of(1, 1);
  const secondMoments = Float64Array.of(4, 0);
  const adam = { learningRate: 0.1, beta2: 0.5, epsilon: 1, step: 1, secondMoments };
  adamStep(weights, Float64Array.of(3, 0), adam);
  expect(adam.step).toBe(2);
  expect([...secondMoments]).toEqual([6.5, 0]);
  expect(weights[0]).toBeCloseTo(1 - (0.1 * Math.sqrt(0.75) * 3) / (Math.sqrt(6.5) + 1), 14);
  expect(weights[1]).toBe(1);
});

const largest = (of: typeof model) => Math.max(...differences(of, reference, "double"));

test("fine-tuned logits equal those of Keras in double precision", () => {
  expect(reference.tasks).toHaveLength(6);
  expect(largest(model)).toBeLessThan(1e-6);
});

test("and those of the package's learner, but where float32 rounds across a ReLU's corner", () => {
  const near = differences(model, reference, "float32").filter((difference) => difference < 1e-3);
  expect(near.length).toBeGreaterThanOrEqual(4);
});

test("the comparison notices an optimizer that starts from zero", () => {
  const secondMoments = new Float64Array(model.network.size);
  const fresh = { ...model, adam: { ...model.adam, secondMoments, step: 0 } };
  expect(largest(fresh)).toBeGreaterThan(1e-1);
  expect(largest({ ...model, innerSteps: model.innerSteps - 1 })).toBeGreaterThan(1e-2);
});

test("fine-tuning lowers the loss and leaves the model as it was", () => {
  const [task] = reference.tasks;
  const before = [model.weights.slice(), model.adam.secondMoments.slice()];
  const { losses } = adapt(model, readPixels(task?.examples ?? ""), model.innerSteps);
  expect(losses).toHaveLength(model.innerSteps);
  expect(losses.at(-1)).toBeLessThan(0.5 * (losses[0] as number));
  expect([model.weights, model.adam.secondMoments]).toEqual(before);
});

test("an example is recognized as itself", () => {
  const examples = readPixels(reference.tasks[0]?.examples ?? "");
  const adapted = adapt(model, examples, model.innerSteps);
  for (const label of [0, 1, 2]) {
    const probabilities = classify(adapted, examples.slice(784 * label, 784 * (label + 1)));
    expect(probabilities.reduce((a, b) => a + b)).toBeCloseTo(1, 12);
    expect(probabilities.indexOf(Math.max(...probabilities))).toBe(label);
  }
});

test("a file of another format or length is refused", () => {
  expect(() => readModel({ ...description, format: "other" }, file)).toThrow(
    "model.json must be of format supervised-reptile-browser-1. Received: other",
  );
  expect(() => readModel(description, file.slice(4))).toThrow(/^model.bin must hold two times/);
});
