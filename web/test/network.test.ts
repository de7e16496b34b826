/** The network and its gradient against TensorFlow.js, which shares no code with it. */

import "@tensorflow/tfjs-backend-cpu";
import * as tf from "@tensorflow/tfjs-core";
import { beforeAll, describe, expect, test } from "vitest";
import { Network, softmax } from "../src/network";
import { logits, lossAndGradients, omniglotLayout } from "./support/tensorflow";

const FILTERS = 5;
const CLASSES = 3;
const layout = omniglotLayout(FILTERS, CLASSES);
const network = new Network(layout, 28);

/** Numbers in [−1, 1) that are the same each time. */
function random(count: number, seed: number): Float64Array {
  let state = seed;
  return Float64Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.fround(state / 2 ** 31 - 1);
  });
}

function tensors(weights: Float64Array): tf.Tensor[] {
  return layout.map(({ offset, shape }) => {
    const size = shape.reduce((a, b) => a * b, 1);
    return tf.tensor(Float32Array.from(weights.subarray(offset, offset + size)), [...shape]);
  });
}

const weights = random(network.size, 1).map((w) => Math.fround(0.5 * w));
const images = random(4 * 784, 2).map((x) => (x < 0.2 ? 0 : 1));
const imageTensor = () => tf.tensor4d(Float32Array.from(images), [4, 28, 28, 1]);

beforeAll(() => tf.setBackend("cpu"));

test("the layout of 24 filters has as many numbers as the paper's network", () => {
  expect(new Network(omniglotLayout(24, 3), 28).size).toBe(16347);
});

describe.each(["conv2d", "patches"] as const)("TensorFlow.js with %s", (form) => {
  test("computes the same logits", () => {
    const expected = logits(tensors(weights), imageTensor(), form).dataSync();
    const received = network.logits(weights, images);
    expect(received).toHaveLength(12);
    received.forEach((logit, i) => {
      expect(logit).toBeCloseTo(expected[i] as number, 4);
    });
  });

  test("computes the same loss and the same gradient of every weight", () => {
    const labels = [2, 0, 1, 2];
    const expected = lossAndGradients(tensors(weights), imageTensor(), labels, form);
    const gradient = new Float64Array(network.size).fill(Number.NaN);
    const loss = network.lossAndGradient(weights, images, labels, gradient);
    expect(loss).toBeCloseTo(expected.value.dataSync()[0] as number, 4);
    layout.forEach(({ name, offset }, i) => {
      const values = (expected.grads[i] as tf.Tensor).dataSync();
      const largest = Math.max(...values.map(Math.abs));
      if (!name.includes("conv") || name.endsWith("kernel")) {
        expect(largest, name).toBeGreaterThan(1e-3); // there is something to compare
      }
      values.forEach((value, j) => {
        expect(Math.abs((gradient[offset + j] as number) - value), name).toBeLessThan(
          1e-4 * Math.max(1, largest),
        );
      });
    });
  });
});

test("the gradient is the slope of the loss", () => {
  const labels = [0, 1, 2, 0];
  const gradient = new Float64Array(network.size);
  network.lossAndGradient(weights, images, labels, gradient);
  const lossAt = (index: number, shift: number) => {
    const moved = weights.slice();
    (moved[index] as number) += shift;
    return network.lossAndGradient(moved, images, labels, new Float64Array(network.size));
  };
  for (const { name, offset, shape } of layout) {
    const index = offset + (shape.reduce((a, b) => a * b, 1) >> 1);
    const slope = (lossAt(index, 1e-6) - lossAt(index, -1e-6)) / 2e-6;
    expect(gradient[index], name).toBeCloseTo(slope, 4);
  }
});

test("images of a batch share their statistics, as the paper's do", () => {
  const alone = network.logits(weights, images.slice(0, 784));
  const together = network.logits(weights, images).slice(0, CLASSES);
  expect(Math.abs((alone[0] as number) - (together[0] as number))).toBeGreaterThan(1e-3);
});

test("softmax is steady for large logits", () => {
  expect([...softmax(Float64Array.of(1000, 1000, 0, 0, 0, 0), 3)]).toEqual(
    [0.5, 0.5, 0, 1 / 3, 1 / 3, 1 / 3].map((p) => expect.closeTo(p, 12)),
  );
});

test("a layout of another network is refused by name", () => {
  const without = layout.filter(({ name }) => name !== "norm3/beta");
  expect(() => new Network(without, 28)).toThrow("the model has no weight norm3/beta");
  expect(() => new Network(layout, 84)).toThrow(
    "logits/kernel must have shape [180,3]. Received: [20,3]",
  );
});
