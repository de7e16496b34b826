/**
 * The Omniglot network of the paper (Sec. 6.1) and its gradient, for the few small images of a
 * drawn task: four blocks of 3×3 convolution with stride 2, SAME padding → batch normalization by
 * the statistics of the batch at hand → ReLU; then a dense layer.
 *
 * Written for this one network, because nothing else trains it as fast without a GPU: README.md
 * has the measurements. JavaScript computes in doubles, so that is what everything here is.
 *
 * The convolutions' biases are left out: subtracting the batch's mean takes any constant out
 * again, and their exact gradient is 0 (as in `fused_for_training` of the Python package).
 */

const NORMALIZATION_EPSILON = 1e-3;
const BLOCKS = 4;
const KERNEL = 3;
const STRIDE = 2;

/** Where one weight lies in the flat vector of all weights. */
export interface TensorSpec {
  name: string;
  shape: readonly number[];
  /** Index of its first number. */
  offset: number;
}

/** One convolution's geometry, on square images. */
interface Convolution {
  inSize: number;
  outSize: number;
  inChannels: number;
  /** Rows of zeros above, and columns on the left: what Keras' SAME padding puts there. */
  padding: number;
}

/** What the forward pass of a block leaves for the backward pass. */
interface BlockTrace {
  patches: Float64Array;
  normalized: Float64Array;
  /** 1 / √(variance + ε), by channel. */
  scale: Float64Array;
  output: Float64Array;
}

interface Trace {
  blocks: BlockTrace[];
  logits: Float64Array;
}

/** The network's shape. Its weights are passed to each call, as one flat vector. */
export class Network {
  readonly size: number;
  readonly classes: number;
  readonly imageSize: number;
  private readonly filters: number;
  private readonly convolutions: Convolution[] = [];
  private readonly tensors: Map<string, TensorSpec>;

  /**
   * @param tensors The weights by their Keras names (`conv1/kernel` … `logits/bias`), in the order
   *   and shapes of Keras: kernels are [row, column, in, out], the dense layer's [in, out].
   * @param imageSize Height and width of the images in pixels.
   * @throws Error when a tensor is missing or the shapes are not those of this network.
   */
  constructor(tensors: readonly TensorSpec[], imageSize: number) {
    this.tensors = new Map(tensors.map((tensor) => [tensor.name, tensor]));
    this.imageSize = imageSize;
    this.filters = this.shape("conv1/kernel")[3] ?? 0;
    let [inSize, inChannels] = [imageSize, 1];
    for (let block = 1; block <= BLOCKS; block++) {
      const outSize = Math.ceil(inSize / STRIDE);
      const padded = (outSize - 1) * STRIDE + KERNEL - inSize;
      const padding = Math.floor(Math.max(padded, 0) / 2);
      this.convolutions.push({ inSize, outSize, inChannels, padding });
      this.require(`conv${block}/kernel`, [KERNEL, KERNEL, inChannels, this.filters]);
      this.require(`norm${block}/gamma`, [this.filters]);
      this.require(`norm${block}/beta`, [this.filters]);
      inSize = outSize;
      inChannels = this.filters;
    }
    this.classes = this.shape("logits/bias")[0] ?? 0;
    this.require("logits/kernel", [inSize * inSize * this.filters, this.classes]);
    this.size = tensors.reduce((sum, { shape }) => sum + product(shape), 0);
  }

  /**
   * Logits of a batch, whose images share their batch statistics.
   *
   * @param weights All weights, length `size`.
   * @param images Pixels 0 (ink) to 1 (paper), image after image, row after row.
   * @returns Logits, image after image.
   */
  logits(weights: Float64Array, images: Float64Array): Float64Array {
    return this.forward(weights, images).logits;
  }

  /**
   * The softmax cross-entropy **summed** over the batch, as in the authors' program, and its
   * gradient with respect to every weight.
   *
   * @param labels The class of each image, 0 … classes − 1.
   * @param gradient Where to put the gradient, length `size`.
   * @returns The loss.
   */
  lossAndGradient(
    weights: Float64Array,
    images: Float64Array,
    labels: readonly number[],
    gradient: Float64Array,
  ): number {
    const trace = this.forward(weights, images);
    const probabilities = softmax(trace.logits, this.classes);
    let loss = 0;
    labels.forEach((label, image) => {
      const index = image * this.classes + label;
      loss -= Math.log(probabilities[index] as number);
      (probabilities[index] as number) -= 1; // now the gradient with respect to the logits
    });
    gradient.fill(0);
    this.backward(weights, trace, probabilities, gradient);
    return loss;
  }

  private forward(weights: Float64Array, images: Float64Array): Trace {
    const count = images.length / this.imageSize ** 2;
    const blocks: BlockTrace[] = [];
    let input = images;
    this.convolutions.forEach((convolution, index) => {
      const patches = extractPatches(input, count, convolution);
      const rows = count * convolution.outSize ** 2;
      const kernel = this.view(weights, `conv${index + 1}/kernel`);
      const convolved = multiply(patches, kernel, rows, this.filters);
      const gamma = this.view(weights, `norm${index + 1}/gamma`);
      const beta = this.view(weights, `norm${index + 1}/beta`);
      const scale = normalize(convolved, this.filters);
      const output = new Float64Array(convolved.length);
      for (let i = 0; i < output.length; i++) {
        const c = i % this.filters;
        const y = at(convolved, i) * at(gamma, c) + at(beta, c);
        output[i] = Math.max(y, 0);
      }
      blocks.push({ patches, normalized: convolved, scale, output });
      input = output;
    });
    const logits = multiply(input, this.view(weights, "logits/kernel"), count, this.classes);
    const bias = this.view(weights, "logits/bias");
    for (let i = 0; i < logits.length; i++) {
      (logits[i] as number) += at(bias, i % this.classes);
    }
    return { blocks, logits };
  }

  private backward(
    weights: Float64Array,
    trace: Trace,
    logitsGradient: Float64Array,
    gradient: Float64Array,
  ): void {
    const count = logitsGradient.length / this.classes;
    const features = (trace.blocks[BLOCKS - 1] as BlockTrace).output;
    multiplyTransposed(features, logitsGradient, this.view(gradient, "logits/kernel"), count);
    const biasGradient = this.view(gradient, "logits/bias");
    for (let i = 0; i < logitsGradient.length; i++) {
      (biasGradient[i % this.classes] as number) += at(logitsGradient, i);
    }
    const denseKernel = this.view(weights, "logits/kernel");
    let upstream: Float64Array = multiplyByTranspose(
      logitsGradient,
      denseKernel,
      count,
      this.classes,
    );
    for (let block = BLOCKS; block >= 1; block--) {
      const convolution = this.convolutions[block - 1] as Convolution;
      const { patches, normalized, scale, output } = trace.blocks[block - 1] as BlockTrace;
      for (let i = 0; i < upstream.length; i++) {
        if (at(output, i) === 0) upstream[i] = 0; // ReLU
      }
      normalizeBackward(
        upstream,
        normalized,
        scale,
        this.view(weights, `norm${block}/gamma`),
        this.view(gradient, `norm${block}/gamma`),
        this.view(gradient, `norm${block}/beta`),
      );
      const rows = count * convolution.outSize ** 2;
      multiplyTransposed(patches, upstream, this.view(gradient, `conv${block}/kernel`), rows);
      if (block > 1) {
        const kernel = this.view(weights, `conv${block}/kernel`);
        const patchGradient = multiplyByTranspose(upstream, kernel, rows, this.filters);
        upstream = scatterPatches(patchGradient, count, convolution);
      }
    }
  }

  private shape(name: string): readonly number[] {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new Error(`the model has no weight ${name}`);
    return tensor.shape;
  }

  private require(name: string, expected: number[]): void {
    const shape = this.shape(name);
    if (shape.join() !== expected.join()) {
      throw new Error(`${name} must have shape [${expected}]. Received: [${shape}]`);
    }
  }

  private view(vector: Float64Array, name: string): Float64Array {
    const { offset, shape } = this.tensors.get(name) as TensorSpec;
    return vector.subarray(offset, offset + product(shape));
  }
}

/** Probabilities of each row of `classes` logits. */
export function softmax(logits: Float64Array, classes: number): Float64Array {
  const result = new Float64Array(logits.length);
  for (let start = 0; start < logits.length; start += classes) {
    const row = logits.subarray(start, start + classes);
    const highest = Math.max(...row);
    const total = row.reduce((sum, logit) => sum + Math.exp(logit - highest), 0);
    row.forEach((logit, i) => {
      result[start + i] = Math.exp(logit - highest) / total;
    });
  }
  return result;
}

/** `array[index]`, for an index that is in range by construction. */
function at(array: Float64Array, index: number): number {
  return array[index] as number;
}

function product(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** Calls `visit` with where each 3×3 patch's row of pixels lies in the image and in the patch. */
function forEachPatchPixel(
  count: number,
  { inSize, outSize, inChannels, padding }: Convolution,
  visit: (pixel: number, patch: number) => void,
): void {
  let patch = 0;
  for (let image = 0; image < count; image++) {
    for (let y = 0; y < outSize; y++) {
      for (let x = 0; x < outSize; x++) {
        for (let dy = 0; dy < KERNEL; dy++) {
          for (let dx = 0; dx < KERNEL; dx++, patch += inChannels) {
            const row = y * STRIDE + dy - padding;
            const column = x * STRIDE + dx - padding;
            if (row >= 0 && row < inSize && column >= 0 && column < inSize) {
              visit(((image * inSize + row) * inSize + column) * inChannels, patch);
            }
          }
        }
      }
    }
  }
}

/** Each output position's patch as a row: [count · outSize², 9 · inChannels]. */
function extractPatches(input: Float64Array, count: number, c: Convolution): Float64Array {
  const patches = new Float64Array(count * c.outSize ** 2 * KERNEL ** 2 * c.inChannels);
  forEachPatchPixel(count, c, (pixel, patch) => {
    for (let i = 0; i < c.inChannels; i++) patches[patch + i] = at(input, pixel + i);
  });
  return patches;
}

/** The transpose of `extractPatches`: adds every patch back to where it was taken from. */
function scatterPatches(patches: Float64Array, count: number, c: Convolution): Float64Array {
  const input = new Float64Array(count * c.inSize ** 2 * c.inChannels);
  forEachPatchPixel(count, c, (pixel, patch) => {
    for (let i = 0; i < c.inChannels; i++) (input[pixel + i] as number) += at(patches, patch + i);
  });
  return input;
}

/** A·B for A [rows, inner] and B [inner, columns]. Zeros in A, about half of it, cost nothing. */
function multiply(a: Float64Array, b: Float64Array, rows: number, columns: number): Float64Array {
  const inner = a.length / rows;
  const result = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const out = row * columns;
    for (let k = 0; k < inner; k++) {
      const factor = at(a, row * inner + k);
      if (factor === 0) continue;
      for (let j = 0, from = k * columns; j < columns; j++, from++) {
        (result[out + j] as number) += factor * at(b, from);
      }
    }
  }
  return result;
}

/** Aᵀ·B, added to `result` [inner, columns], for A [rows, inner] and B [rows, columns]. */
function multiplyTransposed(
  a: Float64Array,
  b: Float64Array,
  result: Float64Array,
  rows: number,
): void {
  const inner = a.length / rows;
  const columns = b.length / rows;
  for (let row = 0; row < rows; row++) {
    for (let k = 0; k < inner; k++) {
      const factor = at(a, row * inner + k);
      if (factor === 0) continue;
      for (let j = 0, to = k * columns, from = row * columns; j < columns; j++, to++, from++) {
        (result[to] as number) += factor * at(b, from);
      }
    }
  }
}

/** A·Bᵀ for A [rows, columns] and B [inner, columns]. */
function multiplyByTranspose(
  a: Float64Array,
  b: Float64Array,
  rows: number,
  columns: number,
): Float64Array {
  const inner = b.length / columns;
  const result = new Float64Array(rows * inner);
  for (let row = 0; row < rows; row++) {
    for (let k = 0; k < inner; k++) {
      let sum = 0;
      for (let j = 0; j < columns; j++) sum += at(a, row * columns + j) * at(b, k * columns + j);
      result[row * inner + k] = sum;
    }
  }
  return result;
}

/** Subtracts each channel's mean and divides by √(variance + ε), in place; returns 1/√…. */
function normalize(x: Float64Array, channels: number): Float64Array {
  const rows = x.length / channels;
  const scale = new Float64Array(channels);
  for (let c = 0; c < channels; c++) {
    let mean = 0;
    for (let i = c; i < x.length; i += channels) mean += at(x, i);
    mean /= rows;
    let variance = 0;
    for (let i = c; i < x.length; i += channels) variance += (at(x, i) - mean) ** 2;
    scale[c] = 1 / Math.sqrt(variance / rows + NORMALIZATION_EPSILON);
    for (let i = c; i < x.length; i += channels) x[i] = (at(x, i) - mean) * at(scale, c);
  }
  return scale;
}

/** Turns dL/dy of y = γ·x̂ + β into dL/dx, in place, and adds to the gradients of γ and β. */
function normalizeBackward(
  dy: Float64Array,
  normalized: Float64Array,
  scale: Float64Array,
  gamma: Float64Array,
  gammaGradient: Float64Array,
  betaGradient: Float64Array,
): void {
  const channels = gamma.length;
  const rows = dy.length / channels;
  for (let c = 0; c < channels; c++) {
    let [sum, product] = [0, 0];
    for (let i = c; i < dy.length; i += channels) {
      sum += at(dy, i);
      product += at(dy, i) * at(normalized, i);
    }
    (betaGradient[c] as number) += sum;
    (gammaGradient[c] as number) += product;
    const factor = at(gamma, c) * at(scale, c);
    for (let i = c; i < dy.length; i += channels) {
      dy[i] = factor * (at(dy, i) - sum / rows - (at(normalized, i) * product) / rows);
    }
  }
}
