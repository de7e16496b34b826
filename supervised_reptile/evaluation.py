"""Few-shot accuracy: fine-tune on each of many tasks and predict its held-out images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.errors import NotFiniteError
from supervised_reptile.finite import check_finite, check_variables, finite_rows
from supervised_reptile.meta_learner import MetaLearner
from supervised_reptile.progress import Mode, Progress
from supervised_reptile.tasks import EvaluationTasks, TaskSpec, evaluation_tasks

_NORMAL_QUANTILE = 1.959964  # of 97.5 %


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Mean accuracy over tasks.

    Attributes:
        mean: Fraction of the queries of all tasks that are classified correctly, in [0, 1].
        interval95: Half the width of the normal 95 % confidence interval of the mean over random
            tasks, in [0, 1]; NaN for a single task. (The paper's ± is the spread over three
            training runs instead.)
        tasks: Number of tasks.
        not_finite: Number of tasks whose predictions were not finite because the fine-tuning
            diverged. All their queries count as wrong.
    """

    mean: float
    interval95: float
    tasks: int
    not_finite: int = 0

    @classmethod
    def of(cls, accuracies: np.ndarray) -> Accuracy:
        """Average the accuracies of the tasks, float [tasks]; NaN where not finite."""
        tasks, failed = len(accuracies), np.isnan(accuracies)
        accuracies = np.where(failed, 0.0, accuracies)
        spread = np.std(accuracies, ddof=1) if tasks > 1 else math.nan
        half_width = float(_NORMAL_QUANTILE * spread / math.sqrt(tasks))
        return cls(float(np.mean(accuracies)), half_width, tasks, int(failed.sum()))

    def __str__(self) -> str:
        text = f"{100 * self.mean:.2f} % ± {100 * self.interval95:.2f} ({self.tasks} tasks"
        if self.not_finite:
            text += f", {self.not_finite} of them not finite and counted as wrong"
        return f"{text})"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of an evaluation for each task.

    Attributes:
        accuracies: float64 [tasks]; NaN where the predictions were not finite.
        classes: int32 [tasks, N], the ids of each task's classes in the data set.
        queries: Number of queries per task.
    """

    accuracies: np.ndarray
    classes: np.ndarray
    queries: int

    @property
    def correct(self) -> np.ndarray:
        """Number of queries classified correctly, int16 [tasks]; −1 if not finite."""
        counts = np.round(self.accuracies * self.queries)
        return np.where(np.isnan(counts), -1, counts).astype(np.int16)

    @property
    def accuracy(self) -> Accuracy:
        """Mean over the tasks."""
        return Accuracy.of(self.accuracies)


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
    progress: Mode = True,
) -> Accuracy:
    """Compute the accuracy over random tasks of a split (paper, Sec. 6.1).

    The tasks depend on the seed, the split and the spec, not on the learner or on
    ``tasks_per_call``. The learner's weights, slots and step count do not change.

    Args:
        learner: The learner to evaluate.
        dataset: Data set to draw the tasks from.
        split: Name of the split, e.g. ``"test"``.
        spec: Shape of a task and of its fine-tuning.
        transductive: Whether the held-out images of a task pass through the network together.
        tasks: Number of tasks, at least 1. Default: the paper's 10,000.
        seed: Seed of the tasks, at least 0.
        examples: ``dataset.images`` (default), or a TensorFlow variable that holds them.
        tasks_per_call: Number of tasks per call of the compiled program, at least 1.
        progress: ``True`` shows a progress bar on a terminal, else a line every half minute.

    Returns:
        The fraction of held-out images that are classified correctly, with its 95 % interval over
        random tasks.

    Raises:
        NotFiniteError: The weights, or the predictions of all tasks, are not finite.

    Example:
        >>> spec = TaskSpec(classes=5, shots=1, batch=5, steps=50)
        >>> evaluate(learner, dataset, "test", spec, tasks=200, transductive=True)
    """
    (outcome,) = evaluate_each_way(
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
    return outcome.accuracy


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
    progress: Mode = True,
) -> list[Outcome]:
    """Evaluate in several settings with a single fine-tuning of each task.

    Args:
        learner: The learner to evaluate.
        dataset: Data set to draw the tasks from.
        split: Name of the split, e.g. ``"test"``.
        spec: Shape of a task and of its fine-tuning.
        transductive: The settings, one or both.
        tasks: Number of tasks, at least 1.
        seed: Seed of the tasks, at least 0.
        examples: As for :func:`evaluate`.
        tasks_per_call: Number of tasks per call of the compiled program, at least 1.
        progress: As for :func:`evaluate`.

    Returns:
        The outcome of each setting.

    Raises:
        NotFiniteError: See :func:`evaluate`.
    """
    examples = dataset.images if examples is None else examples
    accuracies = np.zeros((len(transductive), tasks))
    classes = np.zeros((tasks, spec.classes), np.int32)
    groups = [range(tasks)[first:][:tasks_per_call] for first in range(0, tasks, tasks_per_call)]
    workers = learner.workers
    if workers is not None:
        groups = groups[workers.number :: workers.count]
    done: list[int] = []
    with Progress(sum(map(len, groups)), f"{split} tasks", "task", mode=progress) as bar:
        for group in groups:
            drawn = evaluation_tasks(seed, "evaluation", dataset, split, spec, group)
            logits = learner.predict_tasks_each_way(examples, drawn, transductive)
            accuracies[:, group] = [task_accuracies(each, spec.queries) for each in logits]
            classes[group] = _classes_of(drawn, dataset, spec.queries)
            done += group
            means = (f"{100 * Accuracy.of(each[done]).mean:.2f} %" for each in accuracies)
            bar.say(f"accuracy {' / '.join(means)}")
            bar.add(len(group))
    if workers is not None:
        accuracies = workers.sum(accuracies).numpy()
        classes = workers.sum(classes).numpy()
    if np.isnan(accuracies).all(axis=1).any():
        state = [*learner.model.variables, *learner.inner_optimizer.variables]
        check_variables(state, "the trained state")
        rows = np.unique(drawn.rows())
        is_array = isinstance(examples, np.ndarray)
        check_finite(examples[rows] if is_array else tf.gather(examples, rows), "the examples")
        raise NotFiniteError(
            f"the predictions of all {tasks} {split} tasks became infinite or not a number in "
            f"{spec.steps} steps of fine-tuning. A smaller --learning_rate may help"
        )
    return [Outcome(each, classes, spec.classes * spec.queries) for each in accuracies]


def _classes_of(drawn: EvaluationTasks, dataset: FewShotDataset, per_class: int) -> np.ndarray:
    """Return the classes of the tasks, int32 [tasks, classes], in the order of their labels."""
    queries = drawn.queries[:, ::per_class]  # those of class 0 come first
    ids = np.searchsorted(dataset.class_offsets, queries, side="right") - 1
    return ids.astype(np.int32)


def task_accuracies(logits: np.ndarray, queries: int = 1) -> np.ndarray:
    """Compute the fraction of each task's queries that are classified correctly.

    Args:
        logits: float [tasks, queries, classes]. Every class has the same number of queries, and
            those of class 0 come first.
        queries: Number of queries per class, at least 1.

    Returns:
        float64 [tasks], in [0, 1]; NaN where the logits of a task are not all finite.
    """
    predicted = np.argmax(logits, axis=-1)
    wanted = np.arange(logits.shape[1]) // queries
    return np.where(finite_rows(logits), np.mean(predicted == wanted, axis=-1), np.nan)
