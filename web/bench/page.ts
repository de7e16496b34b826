/** What the benchmark runs inside the browser: the time of a step and of a whole adaptation. */

import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-backend-webgl";
import "@tensorflow/tfjs-backend-webgpu";
import * as tf from "@tensorflow/tfjs-core";
import { adapt, classify, type TrainedModel } from "../src/adaptation";
import { Network } from "../src/network";
import * as oracle from "../test/support/tensorflow";

const CLASSES = 3;

export interface Contestant {
  name: string;
  backend: "arrays" | "cpu" | "wasm" | "webgl" | "webgpu";
  form: oracle.ConvolutionForm;
}

/** A model of random weights: how long it takes does not depend on what it has learned. */
function randomModel(filters: number): TrainedModel {
  const layout = oracle.omniglotLayout(filters, CLASSES);
  const network = new Network(layout, 28);
  const weights = Float64Array.from({ length: network.size }, () => (Math.random() - 0.5) / 5);
  for (const { name, offset, shape } of layout) {
    if (name.endsWith("gamma")) weights.fill(1, offset, offset + (shape[0] as number));
  }
  const secondMoments = new Float64Array(network.size).fill(1e-2);
  const adam = { learningRate: 1e-3, beta2: 0.999, epsilon: 1e-8, step: 1000, secondMoments };
  return { network, weights, adam, innerSteps: 0 };
}

function randomDrawings(count: number): Float64Array {
  return Float64Array.from({ length: count * 784 }, () => (Math.random() < 0.08 ? 0 : 1));
}

function arrays(filters: number, steps: number): () => Promise<void> {
  const model = randomModel(filters);
  const [examples, query] = [randomDrawings(CLASSES), randomDrawings(1)];
  return async () => {
    classify(adapt(model, examples, steps), query);
  };
}

async function tensorflow({ backend, form }: Contestant, filters: number, steps: number) {
  if (!(await tf.setBackend(backend))) throw new Error(`no backend ${backend} here`);
  const { weights, adam } = randomModel(filters);
  const layout = oracle.omniglotLayout(filters, CLASSES);
  const tensors = (from: Float64Array) =>
    layout.map(({ offset, shape }) => {
      const size = shape.reduce((a, b) => a * b, 1);
      return tf.tensor(Float32Array.from(from.subarray(offset, offset + size)), [...shape]);
    });
  const [start, moments] = [tensors(weights), tensors(adam.secondMoments)];
  const images = (count: number) =>
    tf.tensor4d(Float32Array.from(randomDrawings(count)), [count, 28, 28, 1]);
  const [examples, query] = [images(CLASSES), images(1)];
  return async () => {
    const output = tf.tidy(() => {
      let [w, v] = [start, moments];
      for (let step = 0; step < steps; step++) {
        const { grads } = oracle.lossAndGradients(w, examples, [0, 1, 2], form);
        v = v.map((m, i) =>
          tf.add(tf.mul(m, 0.999), tf.mul(tf.square(grads[i] as tf.Tensor), 1e-3)),
        );
        w = w.map((value, i) =>
          tf.sub(
            value,
            tf.mul(1e-3, tf.div(grads[i] as tf.Tensor, tf.add(tf.sqrt(v[i] as tf.Tensor), 1e-8))),
          ),
        );
      }
      return tf.softmax(oracle.logits(w, tf.concat([examples, query]), form));
    });
    await output.data();
    output.dispose();
  };
}

/** Milliseconds of each of `rounds` adaptations of `steps` Adam steps on three images. */
export async function measure(
  contestant: Contestant,
  filters: number,
  steps: number,
  rounds: number,
): Promise<number[]> {
  const run =
    contestant.backend === "arrays"
      ? arrays(filters, steps)
      : await tensorflow(contestant, filters, steps);
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const started = performance.now();
    await run();
    times.push(performance.now() - started);
  }
  return times;
}

setWasmPaths("./wasm/");
Object.assign(window, { measure });
