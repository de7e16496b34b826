"""Training and evaluation tasks from your own arrays, for classification or regression."""

from __future__ import annotations

import numpy as np

from supervised_reptile.tasks import (
    EvaluationTasks,
    MiniBatches,
    TrainingTasks,
    mini_batches,
    task_seeds,
)


def tasks_of_arrays(
    rng: np.random.Generator,
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    batch: int,
    steps: int,
    replacement: bool = False,
    tail: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, TrainingTasks]:
    """Make training tasks from your own arrays, for classification or regression.

    Args:
        rng: Random generator, which is advanced.
        inputs: [tasks, examples, ...], the inputs of each task.
        targets: [tasks, examples, ...], targets of the loss: int labels or float values.
        batch: Size of a mini-batch, at least 1.
        steps: Number of inner steps k, at least 1.
        replacement: As for :func:`mini_batches`.
        tail: Inputs and targets of each task that only the last step sees, all at once (paper,
            Sec. 6.3). Default: the last step is like the others.

    Returns:
        The table of examples [tasks · examples, ...] and the tasks on it, both for
        ``MetaLearner.train_step`` or ``train_steps``.

    Raises:
        ValueError: The arrays disagree in their first two dimensions.

    Example:
        >>> x = rng.uniform(-1, 1, (3, 20, 1)).astype("float32")  # 3 tasks of 20 points
        >>> examples, tasks = tasks_of_arrays(rng, x, 2 * x, batch=5, steps=4)
        >>> learner.train_step(examples, tasks, meta_step=0.1)
    """
    if tail is None:
        table, (rows,) = _table(inputs, targets)
        dealt = _dealt(rng, rows, targets, batch, steps, replacement)
        return table, TrainingTasks(dealt, seeds=task_seeds(rng, len(rows)))
    table, (rows, tail_rows) = _table(inputs, targets, tail[0])
    if tail[0].shape[:2] != tail[1].shape[:2]:
        raise ValueError(
            "tail must be inputs and as many targets, each [tasks, examples, ...]. "
            f"Received: shapes {[a.shape for a in tail]}"
        )
    last = MiniBatches(tail_rows[:, None], tail[1][:, None])
    dealt = _dealt(rng, rows, targets, batch, steps - 1, replacement)
    return table, TrainingTasks(dealt, last, task_seeds(rng, len(rows)))


def evaluation_tasks_of_arrays(
    rng: np.random.Generator,
    inputs: np.ndarray,
    targets: np.ndarray,
    queries: np.ndarray,
    *,
    batch: int,
    steps: int,
    replacement: bool = False,
) -> tuple[np.ndarray, EvaluationTasks]:
    """Make tasks to fine-tune on and predict, from your own arrays.

    Args:
        rng: Random generator, which is advanced.
        inputs: [tasks, examples, ...], the inputs to fine-tune on.
        targets: [tasks, examples, ...], their labels or values.
        queries: [tasks, queries, ...], the inputs to predict.
        batch: Size of a mini-batch, at least 1.
        steps: Number of fine-tuning steps, at least 0.
        replacement: As for :func:`mini_batches`.

    Returns:
        The table of examples and the tasks on it, for ``MetaLearner.predict_tasks`` or
        ``predict_after_each_step``.

    Raises:
        ValueError: The arrays disagree in their number of tasks or examples.
    """
    table, (rows, query_rows) = _table(inputs, targets, queries)
    fine_tuning = _dealt(rng, rows, targets, batch, steps, replacement)
    return table, EvaluationTasks(fine_tuning, rows, query_rows, task_seeds(rng, len(rows)))


def _dealt(
    rng: np.random.Generator,
    rows: np.ndarray,
    targets: np.ndarray,
    batch: int,
    steps: int,
    replacement: bool,
) -> MiniBatches:
    dealt = [mini_batches(rng, rows.shape[1], batch, steps, replacement=replacement) for _ in rows]
    picked = np.take_along_axis(rows[:, None], np.stack(dealt), axis=2)
    return MiniBatches(picked, targets.reshape(-1, *targets.shape[2:])[picked])


def _table(
    inputs: np.ndarray, targets: np.ndarray, *more: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Join all inputs in one table; return it and each array's rows, int32 [tasks, each]."""
    if inputs.shape[:2] != targets.shape[:2] or any(len(a) != len(inputs) for a in more):
        raise ValueError(
            "inputs and targets must be [tasks, examples, ...], and queries of as many tasks. "
            f"Received: shapes {[a.shape for a in (inputs, targets, *more)]}"
        )
    rows, first = [], 0
    for array in (inputs, *more):
        count = array.shape[0] * array.shape[1]
        rows.append(np.arange(first, first + count, dtype=np.int32).reshape(array.shape[:2]))
        first += count
    return np.concatenate([a.reshape(-1, *inputs.shape[2:]) for a in (inputs, *more)]), rows
