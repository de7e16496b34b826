"""Few-shot accuracy: fine-tune on each of many tasks, predict its held-out images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.meta_learner import MetaLearner
from supervised_reptile.tasks import TaskSpec, evaluation_tasks

_NORMAL_QUANTILE = 1.959964  # of 97.5 %


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Mean accuracy over tasks.

    Attributes:
        mean: Share of the queries of all tasks that are classified correctly, in [0, 1].
        interval95: Half the width of the normal 95 % confidence interval of the mean over the
            drawing of tasks, in [0, 1]; NaN for a single task. (The paper's ± is another thing:
            the spread over three training runs.)
        tasks: Number of tasks.
    """

    mean: float
    interval95: float
    tasks: int

    @classmethod
    def of(cls, accuracies: np.ndarray) -> Accuracy:
        """Sum up one accuracy per task, float [tasks]."""
        tasks = len(accuracies)
        spread = np.std(accuracies, ddof=1) if tasks > 1 else math.nan
        half_width = float(_NORMAL_QUANTILE * spread / math.sqrt(tasks))
        return cls(float(np.mean(accuracies)), half_width, tasks)

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} % ± {100 * self.interval95:.2f} ({self.tasks} tasks)"


def evaluate(
    learner: MetaLearner,
    dataset: FewShotDataset,
    split: str,
    spec: TaskSpec,
    *,
    transductive: bool = False,
    tasks: int = 10_000,
    seed: int = 0,
    examples: np.ndarray | tf.Variable | None = None,
    tasks_per_call: int = 32,
    progress: bool = True,
) -> Accuracy:
    """Accuracy over fresh tasks of a split (paper, Sec. 6.1).

    The tasks depend on the seed, the split and the spec, not on the learner or on
    ``tasks_per_call``. The learner's weights, slots and step count stay as they are.

    Args:
        learner: The learner to evaluate.
        dataset: Data set to draw the tasks from.
        split: Name of the split, e.g. ``"test"``.
        spec: Shape of a task and its fine-tuning.
        transductive: Whether the held-out images of a task go through the network together.
        tasks: Number of tasks, at least 1. Default: the paper's 10,000.
        seed: Seed of the tasks, at least 0.
        examples: ``dataset.images`` (the default), or a TensorFlow variable of them.
        tasks_per_call: Tasks in one call of the compiled program, at least 1.
        progress: Whether to show a progress bar.

    Example:
        >>> spec = TaskSpec(classes=5, shots=1, batch=5, steps=50)
        >>> evaluate(learner, dataset, "test", spec, tasks=200, transductive=True)
    """
    (accuracy,) = evaluate_each_way(
        learner,
        dataset,
        split,
        spec,
        (transductive,),
        tasks=tasks,
        seed=seed,
        examples=examples,
        tasks_per_call=tasks_per_call,
        progress=progress,
    )
    return accuracy


def evaluate_each_way(
    learner: MetaLearner,
    dataset: FewShotDataset,
    split: str,
    spec: TaskSpec,
    transductive: Sequence[bool],
    *,
    tasks: int = 10_000,
    seed: int = 0,
    examples: np.ndarray | tf.Variable | None = None,
    tasks_per_call: int = 32,
    progress: bool = True,
) -> list[Accuracy]:
    """As :func:`evaluate`, in several settings after one and the same fine-tuning.

    Args:
        learner: The learner to evaluate.
        dataset: Data set to draw the tasks from.
        split: Name of the split, e.g. ``"test"``.
        spec: Shape of a task and its fine-tuning.
        transductive: The settings, one or both.
        tasks: Number of tasks, at least 1.
        seed: Seed of the tasks, at least 0.
        examples: As for :func:`evaluate`.
        tasks_per_call: Tasks in one call of the compiled program, at least 1.
        progress: Whether to show a progress bar.

    Returns:
        The accuracy of each setting.
    """
    examples = dataset.images if examples is None else examples
    found = []
    with tqdm(total=tasks, desc=f"{split} tasks", unit="task", disable=not progress) as bar:
        for first in range(0, tasks, tasks_per_call):
            positions = range(first, min(first + tasks_per_call, tasks))
            drawn = evaluation_tasks(seed, "evaluation", dataset, split, spec, positions)
            logits = learner.predict_tasks_each_way(examples, drawn, transductive)
            found.append([task_accuracies(each, spec.queries) for each in logits])
            bar.update(len(positions))
            means = " / ".join(f"{100 * np.mean(each):.2f} %" for each in _joined(found))
            bar.set_postfix_str(f"accuracy {means}", refresh=False)
    return [Accuracy.of(each) for each in _joined(found)]


def _joined(found: list[list[np.ndarray]]) -> list[np.ndarray]:
    """One array per setting from one list of arrays per call."""
    return [np.concatenate(each) for each in zip(*found, strict=True)]


def task_accuracies(logits: np.ndarray, queries: int = 1) -> np.ndarray:
    """Share of the queries of each task that are classified correctly.

    Args:
        logits: float [tasks, queries, classes]; the queries are as many of each class, those of
            class 0 first.
        queries: Number of queries per class, at least 1.

    Returns:
        float64 [tasks], in [0, 1].
    """
    predicted = np.argmax(logits, axis=-1)
    return np.mean(predicted == np.arange(logits.shape[1]) // queries, axis=-1)
