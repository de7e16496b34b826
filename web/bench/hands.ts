/**
 * The authored drawings, varied by code as if by several hands: slant, rotation, size, width,
 * tremor and strokes that do not quite meet. These are synthetic, not recordings of people.
 */

import { adapt, classify, type TrainedModel } from "../src/adaptation";
import recorded from "../src/drawings.json";
import { type Drawing, rasterize } from "../src/strokes";

const HANDS = 10;
const TASKS_PER_HAND = 10;
const CLASSES = 3;

const characters = Object.values(recorded as Record<string, Drawing[]>).map((variants) =>
  variants.map((drawing) => drawing.map((stroke) => stroke.map((value) => value / 1000))),
);

/** Uniform numbers from 0 to 1 (mulberry32), the same for the same seed. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function normal(uniform: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** How one hand writes. */
interface Hand {
  slant: number;
  /** In radians. */
  rotation: number;
  size: number;
  width: number;
  tremor: number;
}

function newHand(uniform: () => number): Hand {
  return {
    slant: 0.2 * normal(uniform),
    rotation: 0.08 * normal(uniform),
    size: 0.5 + 0.7 * uniform(),
    width: 0.75 + 0.5 * uniform(),
    tremor: 0.005 + 0.015 * uniform(),
  };
}

/** A drawing as this hand would do it. A hand is never quite the same twice. */
export function drawnBy(hand: Hand, drawing: Drawing, uniform: () => number): Drawing {
  const slant = hand.slant + 0.05 * normal(uniform);
  const rotation = hand.rotation + 0.05 * normal(uniform);
  const size = hand.size * (1 + 0.08 * normal(uniform));
  const width = hand.width * (1 + 0.08 * normal(uniform));
  const [cosine, sine] = [Math.cos(rotation), Math.sin(rotation)];
  const inside = (value: number) => Math.min(Math.max(0.5 + size * value, 0), 1);
  return drawing.map((stroke) => {
    let [wobbleX, wobbleY] = [0.015 * normal(uniform), 0.015 * normal(uniform)];
    const moved: number[] = [];
    for (let i = 0; i + 1 < stroke.length; i += 2) {
      wobbleX = 0.9 * wobbleX + 0.44 * hand.tremor * normal(uniform);
      wobbleY = 0.9 * wobbleY + 0.44 * hand.tremor * normal(uniform);
      const y = (stroke[i + 1] as number) - 0.5 + wobbleY;
      const x = width * ((stroke[i] as number) - 0.5) - slant * y + wobbleX;
      moved.push(inside(cosine * x - sine * y), inside(sine * x + cosine * y));
    }
    return moved;
  });
}

export interface Measurement {
  tasks: number;
  hands: number;
  queries: number;
  mean: number;
  interval95: number;
}

/** Accuracy over tasks of three characters in one hand: an example and two queries of each. */
export function measureHands(model: TrainedModel, seed = 0): Measurement {
  const uniform = generator(seed);
  const accuracies: number[] = [];
  const queriesPerTask = 2 * CLASSES;
  for (let h = 0; h < HANDS; h++) {
    const hand = newHand(uniform);
    for (let t = 0; t < TASKS_PER_HAND; t++) {
      const left = [...characters];
      const task = Array.from({ length: CLASSES }, () => {
        const [variants] = left.splice(Math.floor(uniform() * left.length), 1);
        return (variants as Drawing[]).map((each) => rasterize(drawnBy(hand, each, uniform)));
      });
      const examples = task.flatMap(([image]) => [...(image as Float64Array)]);
      const adapted = adapt(model, Float64Array.from(examples), model.innerSteps);
      let right = 0;
      task.forEach(([, ...queries], label) => {
        for (const query of queries) {
          const probabilities = classify(adapted, query);
          if (probabilities.indexOf(Math.max(...probabilities)) === label) right += 1;
        }
      });
      accuracies.push(right / queriesPerTask);
    }
  }
  const count = accuracies.length;
  const mean = accuracies.reduce((a, b) => a + b) / count;
  const variance = accuracies.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (count - 1);
  return {
    tasks: count,
    hands: HANDS,
    queries: count * queriesPerTask,
    mean,
    interval95: 1.96 * Math.sqrt(variance / count),
  };
}
