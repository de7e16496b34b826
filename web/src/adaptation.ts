/** Fine-tuning on a drawn task, as the Python package evaluates: k steps of Adam, then predict. */

import { type Network, softmax } from "./network";

/** Adam as the inner loop of the meta-training left it (β1 = 0, so there is no first moment). */
export interface AdamState {
  learningRate: number;
  beta2: number;
  epsilon: number;
  /** Steps taken so far, t. */
  step: number;
  /** Second moments v, one a weight. */
  secondMoments: Float64Array;
}

/** What the meta-training hands over: φ and the optimizer's state. */
export interface TrainedModel {
  network: Network;
  weights: Float64Array;
  adam: AdamState;
  /** Inner steps the accuracy on the model card was measured with. */
  innerSteps: number;
}

/** A network fine-tuned on a task, with the examples it was fine-tuned on. */
export interface Adapted {
  network: Network;
  weights: Float64Array;
  examples: Float64Array;
  /** Summed loss before each step. */
  losses: number[];
}

/**
 * One step of Adam in Keras' form (TensorFlow.js places ε otherwise), with β1 = 0:
 *
 *     v ← β2·v + (1 − β2)·g²,   w ← w − lr·√(1 − β2^t) · g / (√v + ε)
 *
 * `weights` and `adam` are changed in place.
 */
export function adamStep(weights: Float64Array, gradient: Float64Array, adam: AdamState): void {
  adam.step += 1;
  const { beta2, epsilon, secondMoments } = adam;
  const rate = adam.learningRate * Math.sqrt(1 - beta2 ** adam.step);
  for (let i = 0; i < weights.length; i++) {
    const g = gradient[i] as number;
    const v = beta2 * (secondMoments[i] as number) + (1 - beta2) * g * g;
    secondMoments[i] = v;
    (weights[i] as number) -= (rate * g) / (Math.sqrt(v) + epsilon);
  }
}

/**
 * Fine-tunes a copy of the model on one example of each class; the model itself stays as it is.
 *
 * @param examples The images of class 0, 1, …, one after the other.
 * @param steps Adam steps, each on all examples.
 */
export function adapt(model: TrainedModel, examples: Float64Array, steps: number): Adapted {
  const { network } = model;
  const weights = model.weights.slice();
  const adam = { ...model.adam, secondMoments: model.adam.secondMoments.slice() };
  const gradient = new Float64Array(network.size);
  const labels = Array.from({ length: network.classes }, (_, label) => label);
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    losses.push(network.lossAndGradient(weights, examples, labels, gradient));
    adamStep(weights, gradient, adam);
  }
  return { network, weights, examples, losses };
}

/**
 * Logits of one image. It goes through the network together with the examples, whose batch
 * statistics it shares: the paper's non-transductive evaluation.
 */
export function queryLogits({ network, weights, examples }: Adapted, query: Float64Array) {
  const batch = new Float64Array(examples.length + query.length);
  batch.set(examples);
  batch.set(query, examples.length);
  return network.logits(weights, batch).slice(-network.classes);
}

/** Probability of each class for one image. */
export function classify(adapted: Adapted, query: Float64Array): Float64Array {
  return softmax(queryLogits(adapted, query), adapted.network.classes);
}
