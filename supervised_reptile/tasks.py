"""Draw few-shot tasks and their mini-batches.

This module only computes indices, with NumPy and a seeded generator. A task is an array of row
numbers of ``FewShotDataset.images``; the compiled learner gathers the images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from supervised_reptile.datasets.few_shot import FewShotDataset

# Independent random streams of one seed. Runs are repeatable only while these numbers stay the
# same: do not renumber.
_STREAMS = {"training": 0, "curve": 1, "evaluation": 2, "pretraining": 3}


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """The shape of a task: N classes, K examples per class, and the mini-batches to learn from.

    Attributes:
        classes: N ("way"), at least 1.
        shots: K, labeled examples per class, at least 1.
        batch: Examples in a mini-batch, at least 1.
        steps: Number of mini-batches, one per optimizer step: k in training, at least 0.
        replacement: Whether each mini-batch is drawn independently, see :func:`mini_batches`.
        tail: Examples per class that only the last training step sees (``foml_tail``, the separate
            tail of the paper's Sec. 6.3), less than ``shots``. 0 means the shared tail.
        queries: Held-out examples per class in an evaluation task, at least 1 (the paper's number).
    """

    classes: int
    shots: int
    batch: int
    steps: int
    replacement: bool = False
    tail: int = 0
    queries: int = 1


class MiniBatches(NamedTuple):
    """Rows of the examples and their labels, for each step.

    Attributes:
        indices: int32 [tasks, steps, batch]; of a single task [steps, batch].
        labels: int32 of the same shape, in 0 … classes − 1; or, for regression, the targets,
            float32 [tasks, steps, batch, ...].
    """

    indices: np.ndarray
    labels: np.ndarray

    def map(self, function: Callable) -> MiniBatches:
        """Apply ``function`` to both arrays."""
        return MiniBatches(function(self.indices), function(self.labels))

    def map_rows(self, function: Callable) -> MiniBatches:
        """Apply ``function`` to the row numbers, and keep the labels."""
        return MiniBatches(function(self.indices), self.labels)

    @staticmethod
    def concatenate(parts: Sequence[MiniBatches]) -> MiniBatches:
        """Concatenate the tasks of several groups."""
        indices, labels = zip(*parts, strict=True)
        return MiniBatches(np.concatenate(indices), np.concatenate(labels))


class TrainingTasks(NamedTuple):
    """The tasks of a meta-batch, or one of them.

    Attributes:
        steps: Mini-batches of the inner steps; with a separate tail, of all steps but the last.
        last: The separate tail (paper, Sec. 6.3): the mini-batch [tasks, 1, batch] of the last
            inner step, which may have another size. ``None`` for the shared tail.
        seeds: int32 [tasks, 2], seeds of the random numbers that layers of the model draw, e.g.
            ``Dropout``. May be ``None`` if no layer draws any.
    """

    steps: MiniBatches
    last: MiniBatches | None = None
    seeds: np.ndarray | None = None

    @property
    def parts(self) -> list[MiniBatches]:
        """All mini-batches in order: ``steps`` and, if there is a separate tail, ``last``."""
        return [self.steps] if self.last is None else [self.steps, self.last]

    def first_and_last(self) -> tuple[MiniBatches, MiniBatches]:
        """Split a single task into the mini-batches of steps 1 … k − 1 and that of step k."""
        if self.last is not None:
            return self.steps, self.last
        return self.steps.map(lambda x: x[:-1]), self.steps.map(lambda x: x[-1:])

    def map(self, function: Callable) -> TrainingTasks:
        """Apply ``function`` to every array."""
        last = None if self.last is None else self.last.map(function)
        return TrainingTasks(self.steps.map(function), last, _applied(function, self.seeds))

    def rows(self) -> np.ndarray:
        """Return every row number that the tasks use, int32 [uses]."""
        return np.concatenate([part.indices.ravel() for part in self.parts])

    def map_rows(self, function: Callable) -> TrainingTasks:
        """Apply ``function`` to the row numbers of the tasks."""
        last = None if self.last is None else self.last.map_rows(function)
        return TrainingTasks(self.steps.map_rows(function), last, self.seeds)

    @staticmethod
    def concatenate(parts: Sequence[TrainingTasks]) -> TrainingTasks:
        """Concatenate the tasks of several groups."""
        steps, last, seeds = zip(*parts, strict=True)
        last = None if last[0] is None else MiniBatches.concatenate(last)
        return TrainingTasks(MiniBatches.concatenate(steps), last, _joined(seeds))


class EvaluationTasks(NamedTuple):
    """Tasks to fine-tune on and predict.

    Attributes:
        steps: The mini-batches to fine-tune on.
        support: int32 [tasks, examples], the labeled examples (classes · shots), each once.
        queries: int32 [tasks, queries], the held-out examples. In classification, every class has
            the same number of queries, and those of class 0 come first.
        seeds: As for :class:`TrainingTasks`.
    """

    steps: MiniBatches
    support: np.ndarray
    queries: np.ndarray
    seeds: np.ndarray | None = None

    def map(self, function: Callable) -> EvaluationTasks:
        """Apply ``function`` to every array."""
        return EvaluationTasks(
            self.steps.map(function),
            function(self.support),
            function(self.queries),
            _applied(function, self.seeds),
        )

    def rows(self) -> np.ndarray:
        """Return every row number that the tasks use, int32 [uses]."""
        arrays = (self.steps.indices, self.support, self.queries)
        return np.concatenate([array.ravel() for array in arrays])

    def map_rows(self, function: Callable) -> EvaluationTasks:
        """Apply ``function`` to the row numbers of the tasks."""
        return EvaluationTasks(
            self.steps.map_rows(function),
            function(self.support),
            function(self.queries),
            self.seeds,
        )

    @staticmethod
    def concatenate(parts: Sequence[EvaluationTasks]) -> EvaluationTasks:
        """Concatenate the tasks of several groups."""
        steps, support, queries, seeds = zip(*parts, strict=True)
        return EvaluationTasks(
            MiniBatches.concatenate(steps),
            np.concatenate(support),
            np.concatenate(queries),
            _joined(seeds),
        )


def task_seeds(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw seeds for the random numbers of layers, int32 [count, 2].

    They come from a child of the generator, so its own next draws do not change.
    """
    return rng.spawn(1)[0].integers(2**31, size=(count, 2), dtype=np.int32)


def random_stream(seed: int, stream: str, *position: int) -> np.random.Generator:
    """Return the generator for one position in a run, for example one meta-iteration.

    Tasks depend only on (seed, stream, position), not on earlier draws. The iteration count is
    therefore the whole state of the random numbers, and a resumed run draws the same tasks as an
    uninterrupted one.

    Args:
        seed: Seed of the run, at least 0.
        stream: ``"training"``, ``"curve"`` (evaluations during training), ``"evaluation"`` or
            ``"pretraining"``.
        *position: Position in the stream, for example the meta-iteration; each at least 0.
    """
    return np.random.default_rng([seed, _STREAMS[stream], *position])


def sample_task(
    rng: np.random.Generator, dataset: FewShotDataset, split: str, classes: int, examples: int
) -> np.ndarray:
    """Draw ``classes`` classes of a split and ``examples`` images per class, all distinct.

    Args:
        rng: Random generator, which is advanced.
        dataset: Data set to draw from.
        split: Name of the split.
        classes: Number of classes N. The label of a class is its position in the draw, 0 … N − 1.
        examples: Number of images per class.

    Returns:
        int32 [classes, examples], rows of ``dataset.images``.

    Raises:
        ValueError: The split has too few classes, or a drawn class has too few images.
    """
    class_ids = rng.choice(dataset.splits[split], size=classes, replace=False)
    starts, ends = dataset.class_offsets[class_ids], dataset.class_offsets[class_ids + 1]
    rows = [
        start + rng.choice(end - start, size=examples, replace=False)
        for start, end in zip(starts, ends, strict=True)
    ]
    return np.asarray(rows, np.int32)


def mini_batches(
    rng: np.random.Generator, num_examples: int, batch: int, steps: int, *, replacement: bool
) -> np.ndarray:
    """Divide the examples of a task into mini-batches.

    Without replacement (as in the paper), the examples are shuffled, used in that order, and
    shuffled again when they run out. A mini-batch may span two passes and may then contain an
    example twice: with 25 examples and batches of 15, the second mini-batch takes 10 examples of
    the first pass and 5 of the second. With replacement, every mini-batch is an independent draw
    of distinct examples.

    Args:
        rng: Random generator, which is advanced.
        num_examples: Number of examples of the task, at least 1.
        batch: Size of a mini-batch, at least 1.
        steps: Number of mini-batches, at least 0.
        replacement: Whether to draw each mini-batch independently.

    Returns:
        int32 [steps, batch], each entry in 0 … num_examples − 1.

    Raises:
        ValueError: With replacement, ``batch`` is greater than ``num_examples``.
    """
    if replacement:
        if batch > num_examples:
            raise ValueError(
                "a mini-batch drawn with replacement holds distinct examples, so batch must be "
                f"at most num_examples. Received: batch={batch}, num_examples={num_examples}"
            )
        return _permutations(rng, steps, num_examples)[:, :batch]
    passes = -(-steps * batch // num_examples)
    dealt = _permutations(rng, passes, num_examples).ravel()
    return dealt[: steps * batch].reshape(steps, batch)


def training_tasks(
    rng: np.random.Generator,
    dataset: FewShotDataset,
    spec: TaskSpec,
    count: int,
    split: str = "train",
) -> TrainingTasks:
    """Draw the tasks of one meta-iteration.

    With a shared tail, the last mini-batch, which FOMAML and MAML treat differently, is drawn like
    the others. With a separate tail (``spec.tail`` = S), the last step sees exactly S examples per
    class, which the other steps never see (paper, Sec. 6.3).

    Args:
        rng: Random generator, which is advanced.
        dataset: Data set to draw from.
        spec: Shape of a training task.
        count: Number of tasks, the meta-batch.
        split: Split whose classes are drawn.
    """
    tail = spec.tail
    steps, last = [], []
    for _ in range(count):
        rows = sample_task(rng, dataset, split, spec.classes, spec.shots)
        images, labels = _labeled(rows[:, tail:])
        num_steps = spec.steps - (1 if tail else 0)
        dealt = mini_batches(rng, len(images), spec.batch, num_steps, replacement=spec.replacement)
        steps.append(MiniBatches(images[dealt], labels[dealt]))
        if tail:
            images, labels = _labeled(rows[:, :tail])
            last.append(MiniBatches(images[None], labels[None]))
    seeds = task_seeds(rng, count)
    return TrainingTasks(_stacked(steps), _stacked(last) if tail else None, seeds)


def evaluation_tasks(
    seed: int, stream: str, dataset: FewShotDataset, split: str, spec: TaskSpec, positions: range
) -> EvaluationTasks:
    """Draw evaluation tasks number ``positions`` of a stream.

    A task has classes × (shots + queries) images. The last images of each class are held out as
    queries (one per class in the paper, Sec. 6.1). Task number i is the same however the tasks are
    grouped into calls.

    Args:
        seed: Seed of the evaluation.
        stream: ``"curve"`` or ``"evaluation"``.
        dataset: Data set to draw from.
        split: Split whose classes are drawn.
        spec: Shape of an evaluation task.
        positions: Numbers of the tasks.
    """
    steps, supports, queries, seeds = [], [], [], []
    split_number = sorted(dataset.splits).index(split)
    for position in positions:
        rng = random_stream(seed, stream, split_number, position)
        rows = sample_task(rng, dataset, split, spec.classes, spec.shots + spec.queries)
        images, labels = _labeled(rows[:, : spec.shots])
        dealt = mini_batches(rng, len(images), spec.batch, spec.steps, replacement=spec.replacement)
        steps.append(MiniBatches(images[dealt], labels[dealt]))
        supports.append(images)
        queries.append(rows[:, spec.shots :].ravel())
        seeds.append(task_seeds(rng, 1)[0])
    return EvaluationTasks(_stacked(steps), np.stack(supports), np.stack(queries), np.stack(seeds))


def _permutations(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    ordered = np.broadcast_to(np.arange(length, dtype=np.int32), (count, length))
    return rng.permuted(ordered, axis=1)


def _labeled(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[classes, examples] → images and labels, each int32 [classes · examples]."""
    labels = np.repeat(np.arange(rows.shape[0], dtype=np.int32), rows.shape[1])
    return rows.ravel(), labels


def _stacked(tasks: Sequence[MiniBatches]) -> MiniBatches:
    indices, labels = zip(*tasks, strict=True)
    return MiniBatches(np.stack(indices), np.stack(labels))


def _applied(function: Callable, array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else function(array)


def _joined(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    given = [array for array in arrays if array is not None]
    return np.concatenate(given) if len(given) == len(arrays) else None
