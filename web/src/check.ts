/** Holds this implementation against the Python package, on the tasks of `reference.json`. */

import { adapt, queryLogits, type TrainedModel } from "./adaptation";
import { type Reference, readPixels } from "./model";

/** The largest difference of a logit after fine-tuning from what the Python package computed. */
export function largestDifference(model: TrainedModel, reference: Reference): number {
  const pixels = model.network.imageSize ** 2;
  let largest = 0;
  for (const task of reference.tasks) {
    const adapted = adapt(model, readPixels(task.examples), model.innerSteps);
    const queries = readPixels(task.queries);
    task.logits.forEach((expected, query) => {
      const logits = queryLogits(adapted, queries.slice(query * pixels, (query + 1) * pixels));
      expected.forEach((value, i) => {
        largest = Math.max(largest, Math.abs(value - (logits[i] as number)));
      });
    });
  }
  return largest;
}
