/** Holds this implementation against the Python package, on the tasks of `reference.json`. */

import { adapt, queryLogits, type TrainedModel } from "./adaptation";
import { type Reference, readPixels } from "./model";

/**
 * The largest difference of a logit after fine-tuning from what Python computed, task by task.
 *
 * @param precision Whether to compare with what Python computed in double precision, or in float32,
 *   whose rounding may put a ReLU on the other side of its corner.
 */
export function differences(
  model: TrainedModel,
  reference: Reference,
  precision: "double" | "float32",
): number[] {
  const pixels = model.network.imageSize ** 2;
  return reference.tasks.map((task) => {
    let largest = 0;
    const adapted = adapt(model, readPixels(task.examples), model.innerSteps);
    const queries = readPixels(task.queries);
    const python = precision === "double" ? task.logits : task.float32_logits;
    python.forEach((expected, query) => {
      const logits = queryLogits(adapted, queries.slice(query * pixels, (query + 1) * pixels));
      expected.forEach((value, i) => {
        largest = Math.max(largest, Math.abs(value - (logits[i] as number)));
      });
    });
    return largest;
  });
}
