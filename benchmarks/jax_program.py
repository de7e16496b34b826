"""The JAX program: a whole meta-iteration, and a whole evaluation task, under ``jax.jit``."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.plain_loop import Program
from benchmarks.workloads import BLOCKS, NORMALIZATION_EPSILON, Workload


class Jax(Program):
    """The program. Weights are a list of arrays in the order and layout of Keras."""

    def __init__(self, workload: Workload, images: np.ndarray, pixel_scale: float) -> None:
        self._network, self._inner = workload.network, workload.config.inner
        self._images, self._pixel_scale = jnp.asarray(images), pixel_scale
        self._weights = [jnp.zeros(shape) for shape in self._network.weight_shapes]
        zeros = [jnp.zeros_like(w) for w in self._weights]
        self._slots = (zeros, zeros, jnp.zeros((), jnp.int32))  # moments and step count
        self._train = jax.jit(self._meta_iteration)
        self._evaluate = jax.jit(self._evaluation_task)

    @staticmethod
    def threads() -> str:
        """Return the threads in use, in readable form; XLA's cannot be set at run time."""
        return "default"

    def load(self, weights):
        """See base class."""
        self._weights = [jnp.asarray(w) for w in weights]

    def weights(self):
        """See base class."""
        return [np.asarray(w) for w in self._weights]

    def train(self, tasks, meta_step):
        """See base class."""
        done = self._train(self._weights, self._slots, tuple(tasks.steps), meta_step)
        self._weights, self._slots = jax.block_until_ready(done)

    def evaluate(self, tasks):
        """See base class."""
        rows = zip(*tasks.steps, tasks.queries, strict=True)
        logits = (self._evaluate(self._weights, self._slots, *each) for each in rows)
        return np.stack([np.asarray(each) for each in logits])

    def _meta_iteration(self, phi, slots, steps, meta_step):
        def one_task(carried, task):
            slots, total = carried
            (tuned, slots), _ = jax.lax.scan(self._step, (phi, slots), task)
            total = [t + (now - p) for t, now, p in zip(total, tuned, phi, strict=True)]
            return (slots, total), None

        start = (slots, [jnp.zeros_like(p) for p in phi])
        (slots, total), _ = jax.lax.scan(one_task, start, steps)
        scale = meta_step / len(steps[0])
        return [p + scale * t for p, t in zip(phi, total, strict=True)], slots

    def _evaluation_task(self, phi, slots, rows, labels, queries):
        (tuned, _), _ = jax.lax.scan(self._step, (phi, slots), (rows, labels))
        return self._logits(tuned, queries)

    def _step(self, carried, batch):
        """Take one step of Adam, with the bias correction in the step size as in Keras."""
        weights, (first, second, count) = carried
        gradients = jax.grad(self._loss)(weights, *batch)
        inner, count = self._inner, count + 1
        corrected = jnp.sqrt(1 - inner.beta_2**count) / (1 - inner.beta_1**count)
        rate = inner.learning_rate * corrected
        pairs = functools.partial(zip, strict=True)
        first = [m + (1 - inner.beta_1) * (g - m) for m, g in pairs(first, gradients)]
        second = [v + (1 - inner.beta_2) * (g * g - v) for v, g in pairs(second, gradients)]
        weights = [
            w - rate * m / (jnp.sqrt(v) + inner.epsilon)
            for w, m, v in pairs(weights, first, second)
        ]
        return (weights, (first, second, count)), None

    def _loss(self, weights, rows, labels):
        log_probabilities = jax.nn.log_softmax(self._logits(weights, rows))
        return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).sum()

    def _logits(self, weights, rows):
        x = self._images[rows] * jnp.float32(self._pixel_scale)
        for block in range(BLOCKS):
            kernel, bias, gamma, beta = weights[4 * block : 4 * block + 4]
            strides = (self._network.stride, self._network.stride)
            x = jax.lax.conv_general_dilated(
                x, kernel, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = x + bias
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
            x = (x - mean) * (gamma * jax.lax.rsqrt(variance + NORMALIZATION_EPSILON)) + beta
            if self._network.pool:
                window = (1, 2, 2, 1)
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "SAME")
            x = jax.nn.relu(x)
        kernel, bias = weights[-2:]
        return x.reshape(len(x), -1) @ kernel + bias
