"""Copy to the device only the examples that the tasks need."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import tensorflow as tf

from supervised_reptile.tasks import EvaluationTasks, TrainingTasks

Tasks = TypeVar("Tasks", TrainingTasks, EvaluationTasks)


class Staging:
    """Gather rows of an array in host memory, or on disk, for one call of a compiled function.

    A data set may therefore be a memory map that is larger than memory. A meta-iteration needs a
    few hundred images; copying them takes less than a hundredth of its time.
    """

    def __init__(self) -> None:
        # A variable: TensorFlow gathers bytes on a GPU from a variable, but not from a tensor.
        self._variable: tf.Variable | None = None

    def bring(
        self, examples: np.ndarray | tf.Variable | tf.Tensor, tasks: Tasks
    ) -> tuple[tf.Variable | tf.Tensor, Tasks]:
        """Copy the examples of some tasks to the device.

        Args:
            examples: All stored examples, [num_examples, ...]. TensorFlow variables and tensors
                are used directly.
            tasks: Tasks whose indices are rows of ``examples``.

        Returns:
            The required rows, each once, in a variable that the next call overwrites; and the
            tasks with indices into that variable, as tensors.
        """
        if isinstance(examples, tf.Variable | tf.Tensor):
            return examples, tasks.map(tf.convert_to_tensor)
        rows = np.unique(tasks.rows())
        self._assign(np.ascontiguousarray(examples[rows]))
        tasks = tasks.map_rows(lambda wanted: np.searchsorted(rows, wanted).astype(np.int32))
        return self._variable, tasks.map(tf.convert_to_tensor)

    def _assign(self, needed: np.ndarray) -> None:
        shape = tf.TensorShape([None, *needed.shape[1:]])
        kept = self._variable
        # Assigning floats to a variable of bytes would silently round them down.
        if kept is None or kept.dtype != needed.dtype or kept.shape.as_list() != shape.as_list():
            self._variable = tf.Variable(needed, trainable=False, shape=shape)
        else:
            kept.assign(needed)
