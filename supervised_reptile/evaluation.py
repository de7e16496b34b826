"""Few-shot accuracy: fine-tune on each of many tasks, predict its held-out images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from supervised_reptile.config import Config
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.reptile import MetaLearner
from supervised_reptile.tasks import evaluation_tasks

_NORMAL_QUANTILE = 1.959964  # of 97.5 %


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Mean accuracy over tasks.

    Attributes:
        mean: Correct predictions / (tasks · classes), in [0, 1].
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
        """Sum up one accuracy a task, float [tasks]."""
        tasks = len(accuracies)
        spread = np.std(accuracies, ddof=1) if tasks > 1 else math.nan
        half_width = float(_NORMAL_QUANTILE * spread / math.sqrt(tasks))
        return cls(float(np.mean(accuracies)), half_width, tasks)

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} % ± {100 * self.interval95:.2f} ({self.tasks} tasks)"


def evaluate(
    learner: MetaLearner,
    examples: np.ndarray | tf.Variable,
    dataset: FewShotDataset,
    split: str,
    config: Config,
    *,
    tasks_per_call: int = 32,
    progress: bool = True,
) -> Accuracy:
    """Accuracy over ``eval_samples`` fresh tasks of a split (paper, Sec. 6.1).

    The tasks depend on the seed, the split and the task's shape, not on the learner or on
    ``tasks_per_call``. The learner's weights, slots and step count stay as they are.

    Args:
        learner: The learner to evaluate.
        examples: ``dataset.images``, or a TensorFlow variable of them.
        dataset: Where the tasks are drawn from.
        split: Name of the split, e.g. ``"test"``.
        config: Supplies classes, shots, eval_iters, eval_batch, eval_samples, transductive,
            replacement and seed.
        tasks_per_call: Tasks in one call of the compiled program, at least 1.
        progress: Whether to show a progress bar.
    """
    (accuracy,) = evaluate_each_way(
        learner,
        examples,
        dataset,
        split,
        config,
        (config.eval.transductive,),
        tasks_per_call=tasks_per_call,
        progress=progress,
    )
    return accuracy


def evaluate_each_way(
    learner: MetaLearner,
    examples: np.ndarray | tf.Variable,
    dataset: FewShotDataset,
    split: str,
    config: Config,
    transductive: Sequence[bool],
    *,
    tasks_per_call: int = 32,
    progress: bool = True,
) -> list[Accuracy]:
    """As :func:`evaluate`, in several settings after one and the same fine-tuning.

    Args:
        learner: The learner to evaluate.
        examples: ``dataset.images``, or a TensorFlow variable of them.
        dataset: Where the tasks are drawn from.
        split: Name of the split, e.g. ``"test"``.
        config: As for :func:`evaluate`, less ``transductive``.
        transductive: The settings, one or both.
        tasks_per_call: Tasks in one call of the compiled program, at least 1.
        progress: Whether to show a progress bar.

    Returns:
        The accuracy of each setting.
    """
    total, found = config.eval.eval_samples, []
    with tqdm(total=total, desc=f"{split} tasks", unit="task", disable=not progress) as bar:
        for first in range(0, total, tasks_per_call):
            positions = range(first, min(first + tasks_per_call, total))
            tasks = evaluation_tasks(config.seed, "evaluation", dataset, split, config, positions)
            logits = learner.predict_tasks_each_way(examples, tasks, transductive)
            found.append([task_accuracies(each) for each in logits])
            bar.update(len(positions))
            means = " / ".join(f"{100 * np.mean(each):.2f} %" for each in _joined(found))
            bar.set_postfix_str(f"accuracy {means}", refresh=False)
    return [Accuracy.of(each) for each in _joined(found)]


def _joined(found: list[list[np.ndarray]]) -> list[np.ndarray]:
    """One array a setting from one list of arrays a call."""
    return [np.concatenate(each) for each in zip(*found, strict=True)]


def task_accuracies(logits: np.ndarray) -> np.ndarray:
    """Share of queries predicted right, a task.

    Args:
        logits: float [tasks, queries, classes]; the label of query c is c.

    Returns:
        float64 [tasks], in [0, 1].
    """
    predicted = np.argmax(logits, axis=-1)
    return np.mean(predicted == np.arange(logits.shape[1]), axis=-1)
