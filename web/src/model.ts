/** Reads what `python -m supervised_reptile export` writes; README.md describes the files. */

import type { TrainedModel } from "./adaptation";
import { Network, type TensorSpec } from "./network";

const FORMAT = "supervised-reptile-browser-1";

/** `model.json`. */
export interface ModelDescription {
  format: string;
  image_size: number;
  classes: number;
  tensors: TensorSpec[];
  adam: {
    learning_rate: number;
    beta_2: number;
    epsilon: number;
    iterations: number;
    second_moments_offset: number;
  };
  inner_steps: number;
  record: RunRecord;
}

/** The parts of a run's record that the page shows. */
export interface RunRecord {
  accuracy: Record<string, { mean: number; interval95: number | null; tasks: number }>;
  iterations: number;
  config: {
    seed: number;
    task: { dataset: string; classes: number; shots: number; train_shots: number };
    model: { filters: number };
  };
}

/**
 * `reference.json`: pixels as strings of "0" and "1", image after image, and what Python computes
 * for the queries, in double precision and in float32.
 */
export interface Reference {
  tasks: {
    examples: string;
    queries: string;
    logits: number[][];
    float32_logits: number[][];
  }[];
}

/**
 * Puts `model.json` and `model.bin` together.
 *
 * @throws Error when they are of another format or do not belong together.
 */
export function readModel(description: ModelDescription, file: ArrayBuffer): TrainedModel {
  if (description.format !== FORMAT) {
    throw new Error(`model.json must be of format ${FORMAT}. Received: ${description.format}`);
  }
  const { tensors, adam } = description;
  const network = new Network(tensors, description.image_size);
  if (file.byteLength !== 8 * network.size || adam.second_moments_offset !== network.size) {
    throw new Error(
      `model.bin must hold two times ${network.size} numbers. Received: ${file.byteLength} bytes`,
    );
  }
  const view = new DataView(file);
  const numbers = Float64Array.from({ length: 2 * network.size }, (_, i) =>
    view.getFloat32(4 * i, true),
  );
  return {
    network,
    weights: numbers.slice(0, network.size),
    adam: {
      learningRate: adam.learning_rate,
      beta2: adam.beta_2,
      epsilon: adam.epsilon,
      step: adam.iterations,
      secondMoments: numbers.slice(network.size),
    },
    innerSteps: description.inner_steps,
  };
}

/** Pixels of a string of "0" and "1". */
export function readPixels(text: string): Float64Array {
  return Float64Array.from(text, Number);
}
