"""Tasks that run in parallel, each on a copy of the weights and of the optimizer's state."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from supervised_reptile.inner_loop import InnerLoop
from supervised_reptile.tasks import EvaluationTasks, TrainingTasks


class Lanes:
    """Run a function of each task, from the current φ, slots and step count.

    The learner's variables are only read, so tasks do not affect each other, and the results do not
    depend on the number of lanes. With several GPUs, the lanes take turns on them.

    Args:
        model: Keras model that holds φ.
        trained: The learner's inner loop. Every task starts from its optimizer's state.
        count: Number of tasks that run in parallel, at least 1.
        reset_optimizer: Whether every task starts from a new optimizer's state instead.
    """

    def __init__(
        self, model: keras.Model, trained: InnerLoop, count: int, *, reset_optimizer: bool
    ) -> None:
        self._model = model
        self._trained = trained
        devices = _devices()
        self._devices = [devices[n % len(devices)] for n in range(count)]
        self._lanes = []
        for device in self._devices:
            with _on(device):
                self._lanes.append(trained.twin())
        self._reset_optimizer = reset_optimizer

    def map(
        self,
        one_task: Callable[[InnerLoop, Any], Any],
        tasks: TrainingTasks | EvaluationTasks,
        signature: Any = tf.float32,
    ) -> Any:
        """Call ``one_task(inner_loop, task)`` for each task, to be compiled.

        Args:
            one_task: The function. Its inner loop is at the start of the task.
            tasks: The tasks, as tensors.
            signature: Types of the results, nested as they are.

        Returns:
            The results, stacked: [tasks, ...].
        """
        phi = self._trained.fast_weights.pack([v.value for v in self._model.trainable_variables])
        stride = len(self._lanes)

        def run_lane(inner: InnerLoop, numbers: tf.Tensor) -> Any:
            def from_start(i: tf.Tensor) -> Any:
                inner.start_from(phi)
                inner.fast_weights.copy_optimizer_state(self._trained.fast_weights)
                if self._reset_optimizer:
                    inner.fast_weights.reset_optimizer()
                task = tasks.map(lambda x: x[i])
                inner.start_task(task.seeds)
                return one_task(inner, task)

            return tf.map_fn(
                from_start, numbers, fn_output_signature=signature, parallel_iterations=1
            )

        # Tasks are independent and every lane has its own variables, so TensorFlow runs the
        # lanes in parallel.
        numbers = tf.range(tf.shape(tasks.steps.indices)[0])
        lanes = [numbers[n::stride] for n in range(stride)]
        results = []
        for device, *lane in zip(self._devices, self._lanes, lanes, strict=True):
            with _on(device):
                results.append(run_lane(*lane))
        if stride == 1:
            return results[0]
        return tf.nest.map_structure(lambda *parts: tf.dynamic_stitch(lanes, parts), *results)


def _on(device: str | None) -> contextlib.AbstractContextManager:
    return tf.device(device) if device else contextlib.nullcontext()


def _devices() -> Sequence[str | None]:
    """Return the GPUs if there are several; else TensorFlow chooses."""
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    return gpus if len(gpus) > 1 else [None]
