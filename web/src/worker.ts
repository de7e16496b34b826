/** Fine-tunes and classifies off the page's own thread, so that drawing never waits for it. */

import { type Adapted, adapt, classify, type TrainedModel } from "./adaptation";
import { differences } from "./check";
import { type ModelDescription, type Reference, readModel } from "./model";

/** What the page asks for. */
export type Request =
  | { kind: "load"; folder: string }
  | { kind: "check" }
  | { kind: "classify"; examples: Float64Array; query: Float64Array | null };

/** What the worker answers. */
export type Answer =
  | { kind: "loaded"; description: ModelDescription }
  | { kind: "checked"; difference: number }
  | {
      kind: "classified";
      probabilities: Float64Array | null;
      /** Fine-tuning time in milliseconds, of when these examples were learned. */
      milliseconds: number;
    }
  | { kind: "failed"; message: string };

let folder = "";
let model: TrainedModel | null = null;
let adapted: Adapted | null = null;
let milliseconds = 0;

async function fetchFrom(name: string): Promise<Response> {
  const response = await fetch(new URL(name, folder));
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response;
}

async function load(): Promise<Answer> {
  const [description, file] = await Promise.all([
    fetchFrom("model.json").then((response) => response.json() as Promise<ModelDescription>),
    fetchFrom("model.bin").then((response) => response.arrayBuffer()),
  ]);
  model = readModel(description, file);
  return { kind: "loaded", description };
}

async function answer(request: Request): Promise<Answer> {
  if (request.kind === "load") {
    folder = request.folder;
    return load();
  }
  if (!model) throw new Error("the model is not loaded yet");
  if (request.kind === "check") {
    const reference = (await (await fetchFrom("reference.json")).json()) as Reference;
    return { kind: "checked", difference: Math.max(...differences(model, reference, "double")) };
  }
  const { examples, query } = request;
  if (!adapted || adapted.examples.some((pixel, i) => pixel !== examples[i])) {
    const started = performance.now();
    adapted = adapt(model, examples, model.innerSteps);
    milliseconds = performance.now() - started;
  }
  return { kind: "classified", probabilities: query && classify(adapted, query), milliseconds };
}

self.addEventListener("message", async ({ data }: MessageEvent<Request>) => {
  try {
    self.postMessage(await answer(data));
  } catch (error) {
    self.postMessage({
      kind: "failed",
      message: error instanceof Error ? error.message : String(error),
    } satisfies Answer);
  }
});
