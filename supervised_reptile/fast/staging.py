"""The examples that some tasks need, and no others, brought to the device."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import tensorflow as tf

from supervised_reptile.tasks import EvaluationTasks, MiniBatches, TrainingTasks

Tasks = TypeVar("Tasks", TrainingTasks, EvaluationTasks)


class Staging:
    """Gathers rows of an array in host memory, or on disk, for one call of a compiled function.

    So a data set may be a memory map larger than memory. A meta-iteration needs a few hundred
    images; copying them takes less than a hundredth of its time.
    """

    def __init__(self) -> None:
        # A variable: TensorFlow gathers bytes on a GPU from a variable, but not from a tensor.
        self._variable: tf.Variable | None = None

    def bring(
        self, examples: np.ndarray | tf.Variable | tf.Tensor, tasks: Tasks
    ) -> tuple[tf.Variable | tf.Tensor, Tasks]:
        """Bring the examples of some tasks to the device.

        Args:
            examples: All stored examples, [num_examples, ...]. What is TensorFlow's already is
                left as it is.
            tasks: Tasks whose indices are rows of ``examples``.

        Returns:
            The rows that are needed, each once, in a variable that the next call overwrites; and
            the tasks with indices into it.
        """
        if isinstance(examples, tf.Variable | tf.Tensor):
            return examples, tasks
        parts = _index_arrays(tasks)
        rows, places = np.unique(np.concatenate([p.ravel() for p in parts]), return_inverse=True)
        needed = np.ascontiguousarray(examples[rows])
        shape = tf.TensorShape([None, *needed.shape[1:]])
        kept = self._variable
        # Assigning floats to a variable of bytes would round them down without a word.
        if kept is None or kept.dtype != needed.dtype or kept.shape.as_list() != shape.as_list():
            self._variable = tf.Variable(needed, trainable=False, shape=shape)
        else:
            self._variable.assign(needed)
        ends = np.cumsum([part.size for part in parts])[:-1]
        split = np.split(places.astype(np.int32), ends)
        renumbered = [new.reshape(old.shape) for new, old in zip(split, parts, strict=True)]
        return self._variable, _with_index_arrays(tasks, renumbered)


def _index_arrays(tasks: TrainingTasks | EvaluationTasks) -> list[np.ndarray]:
    """Every array of the tasks that holds rows of the examples."""
    if isinstance(tasks, EvaluationTasks):
        return [tasks.steps.indices, tasks.support, tasks.queries]
    return [part.indices for part in tasks if part is not None]


def _with_index_arrays(tasks: Tasks, arrays: list[np.ndarray]) -> Tasks:
    steps = MiniBatches(arrays[0], tasks.steps.labels)
    if isinstance(tasks, EvaluationTasks):
        return EvaluationTasks(steps, *arrays[1:])
    last = None if tasks.last is None else MiniBatches(arrays[1], tasks.last.labels)
    return TrainingTasks(steps, last)
