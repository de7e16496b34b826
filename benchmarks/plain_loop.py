"""The interface of every program in the benchmark, and a loop around a training step.

Python 3.6 can run it too, as TensorFlow 1 needs an interpreter of its time.
"""

import abc
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np


class Program(abc.ABC):
    """A program that trains and evaluates one workload."""

    @abc.abstractmethod
    def load(self, weights) -> None:
        """Set φ; arrays in the order and layout of Keras."""

    @abc.abstractmethod
    def weights(self) -> list:
        """Returns φ in the order and layout of Keras."""

    @abc.abstractmethod
    def train(self, tasks, meta_step: float) -> None:
        """Run one meta-iteration, of ``supervised_reptile.tasks.TrainingTasks``, to its end."""

    @abc.abstractmethod
    def evaluate(self, tasks) -> np.ndarray:
        """Fine-tune on each task and predict its queries together, without changing any state.

        Args:
            tasks: As ``supervised_reptile.tasks.EvaluationTasks``.

        Returns:
            float32 [tasks, queries, classes], logits.
        """

    def peak_megabytes(self) -> float:
        """Return the peak memory of its process so far, in MiB."""
        try:
            # Not getrusage, which on Linux never reports less than the parent had at the start.
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) / 2**10
        except (OSError, IndexError):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak / (2**20 if sys.platform == "darwin" else 2**10)

    def close(self) -> None:  # noqa: B027 (most have nothing to end)
        """End its processes."""


class PlainLoop(Program):
    """The common part of all baselines with their own training step.

    They differ only in how they take a step and how they export and import their state.

    Args:
        images: uint8 [num_images, height, width, channels], all images.
        pixel_scale: Factor from ``images`` to the network's input.
    """

    def __init__(self, images: np.ndarray, pixel_scale: float) -> None:
        self._images, self._pixel_scale = images, np.float32(pixel_scale)

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Return the images ``rows`` as the network's input, float32."""
        return self._images[rows] * self._pixel_scale

    @abc.abstractmethod
    def step(self, rows: np.ndarray, labels: np.ndarray) -> None:
        """Take one inner step on the images ``rows``, int32 [batch]."""

    @abc.abstractmethod
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Returns the logits of images that share their batch statistics, float32."""

    @abc.abstractmethod
    def export_state(self) -> Any:
        """Returns a copy of weights, slots and step count."""

    @abc.abstractmethod
    def import_state(self, state: Any) -> None:
        """Set weights, slots and step count."""

    def train(self, tasks, meta_step):
        """See base class."""
        start = self.weights()
        total = [np.zeros_like(w) for w in start]
        for rows, labels in zip(*tasks.steps):
            for batch in zip(rows, labels):
                self.step(*batch)
            total = [t + (w - s) for t, w, s in zip(total, self.weights(), start)]
            self.load(start)
        scale = meta_step / len(tasks.steps[0])
        self.load([s + scale * t for s, t in zip(start, total)])

    def evaluate(self, tasks):
        """See base class."""
        logits = []
        for rows, labels, queries in zip(*tasks.steps, tasks.queries):
            backup = self.export_state()
            for batch in zip(rows, labels):
                self.step(*batch)
            logits.append(self.predict(queries))
            self.import_state(backup)
        return np.stack(logits)
