/**
 * The same network and its gradient in TensorFlow.js, for comparison: the oracle of the unit
 * tests and the other contestants of the benchmark.
 */

import "@tensorflow/tfjs-core/dist/register_all_gradients";
import * as tf from "@tensorflow/tfjs-core";
import type { TensorSpec } from "../../src/network";

/** How a convolution is computed: `patches` needs no gradient of a convolution. */
export type ConvolutionForm = "conv2d" | "patches";

/** The Keras layout of the paper's network with this many filters, for 28×28 images. */
export function omniglotLayout(filters: number, classes: number): TensorSpec[] {
  const shapes: [string, number[]][] = [];
  for (let block = 1; block <= 4; block++) {
    shapes.push(
      [`conv${block}/kernel`, [3, 3, block === 1 ? 1 : filters, filters]],
      [`conv${block}/bias`, [filters]],
      [`norm${block}/gamma`, [filters]],
      [`norm${block}/beta`, [filters]],
    );
  }
  shapes.push(["logits/kernel", [4 * filters, classes]], ["logits/bias", [classes]]);
  let offset = 0;
  return shapes.map(([name, shape]) => {
    const spec = { name, shape, offset };
    offset += shape.reduce((a, b) => a * b, 1);
    return spec;
  });
}

function patchConvolution(x: tf.Tensor4D, kernel: tf.Tensor4D): tf.Tensor4D {
  const [count, size, , channels] = x.shape;
  const out = Math.ceil(size / 2);
  const total = Math.max((out - 1) * 2 + 3 - size, 0);
  const before = Math.floor(total / 2);
  const padded = tf.pad(x, [
    [0, 0],
    [before, 2 * out + 2 - size - before],
    [before, 2 * out + 2 - size - before],
    [0, 0],
  ]);
  // Every second pixel, starting at (dy, dx), by slices and reshapes: all have gradients.
  const taps: tf.Tensor[] = [];
  for (let dy = 0; dy < 3; dy++) {
    for (let dx = 0; dx < 3; dx++) {
      const window = tf.slice(padded, [0, dy, dx, 0], [count, 2 * out, 2 * out, channels]);
      const rows = tf.slice(
        tf.reshape(window, [count * out, 2, 2 * out, channels]),
        [0, 0, 0, 0],
        [count * out, 1, 2 * out, channels],
      );
      const pixels = tf.slice(
        tf.reshape(rows, [count * out * out, 2, channels]),
        [0, 0, 0],
        [count * out * out, 1, channels],
      );
      taps.push(tf.reshape(pixels, [count * out * out, channels]));
    }
  }
  const flat = tf.reshape(kernel, [9 * channels, kernel.shape[3]]);
  return tf.reshape(tf.matMul(tf.concat(taps, 1), flat as tf.Tensor2D), [
    count,
    out,
    out,
    kernel.shape[3],
  ]);
}

/** Logits of float32 [count, 28, 28, 1] images, by weights in the order of the layout. */
export function logits(weights: tf.Tensor[], images: tf.Tensor4D, form: ConvolutionForm) {
  let x = images;
  for (let block = 0; block < 4; block++) {
    const [kernel, bias, gamma, beta] = weights.slice(4 * block, 4 * block + 4) as tf.Tensor[];
    const convolved =
      form === "conv2d"
        ? tf.conv2d(x, kernel as tf.Tensor4D, 2, "same")
        : patchConvolution(x, kernel as tf.Tensor4D);
    const biased = tf.add(convolved, bias as tf.Tensor);
    const mean = tf.mean(biased, [0, 1, 2], true);
    const centered = tf.sub(biased, mean);
    const variance = tf.mean(tf.square(centered), [0, 1, 2], true);
    const normalized = tf.div(centered, tf.sqrt(tf.add(variance, 1e-3)));
    x = tf.relu(tf.add(tf.mul(normalized, gamma as tf.Tensor), beta as tf.Tensor));
  }
  const [kernel, bias] = weights.slice(16) as [tf.Tensor2D, tf.Tensor1D];
  return tf.add(tf.matMul(tf.reshape(x, [images.shape[0], -1]), kernel), bias) as tf.Tensor2D;
}

/** The loss summed over the batch, and the gradient of every weight. */
export function lossAndGradients(
  weights: tf.Tensor[],
  images: tf.Tensor4D,
  labels: readonly number[],
  form: ConvolutionForm,
) {
  const targets = tf.oneHot(tf.tensor1d([...labels], "int32"), weights[17]?.shape[0] ?? 0);
  const loss = (...w: tf.Tensor[]) =>
    tf.neg(tf.sum(tf.mul(tf.logSoftmax(logits(w, images, form)), targets))) as tf.Scalar;
  return tf.valueAndGrads(loss)(weights);
}
