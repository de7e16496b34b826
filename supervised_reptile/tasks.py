"""How few-shot tasks and their mini-batches are drawn; nothing else in the package knows.

Everything here is NumPy index arithmetic on a seeded generator: a task is an array of rows into
``FewShotDataset.images``, and the images themselves are gathered inside the compiled learner.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from supervised_reptile.config import Config
from supervised_reptile.datasets.few_shot import FewShotDataset

# Independent streams of random numbers of one seed. The numbers are part of what makes a run
# repeatable: do not renumber.
_STREAMS = {"training": 0, "curve": 1, "evaluation": 2, "pretraining": 3}


class MiniBatches(NamedTuple):
    """Rows of the examples and their labels, step by step.

    Attributes:
        indices: int32 [tasks, steps, batch].
        labels: int32 [tasks, steps, batch], in 0 … classes − 1; for regression the target
            values, float32 [tasks, steps, batch, ...].
    """

    indices: np.ndarray
    labels: np.ndarray


class TrainingTasks(NamedTuple):
    """The tasks of one meta-iteration.

    Attributes:
        steps: Mini-batches of the inner steps; with a separate tail, of all but the last one.
        last: The separate tail (paper, Sec. 6.3), mini-batch [tasks, 1, batch] of the last inner
            step, which may be of another size; else ``None``.
    """

    steps: MiniBatches
    last: MiniBatches | None = None


class EvaluationTasks(NamedTuple):
    """Tasks to fine-tune on and predict.

    Attributes:
        steps: The mini-batches to fine-tune on.
        support: int32 [tasks, examples], the training examples (classes · shots), each once.
        queries: int32 [tasks, queries], the held-out examples: of a classification one a class,
            where the label of ``queries[t, c]`` is ``c``.
    """

    steps: MiniBatches
    support: np.ndarray
    queries: np.ndarray


def random_stream(seed: int, stream: str, *position: int) -> np.random.Generator:
    """Generator for one place in a run, e.g. one meta-iteration.

    Tasks depend on (seed, stream, position) alone and not on what was drawn before, so the state
    of the random numbers is the iteration count, and a run resumed from a checkpoint draws what
    the uninterrupted run would have drawn.

    Args:
        seed: Seed of the run, at least 0.
        stream: ``"training"``, ``"curve"`` (evaluations during training), ``"evaluation"`` or
            ``"pretraining"``.
        *position: Where in the stream, e.g. the meta-iteration; each at least 0.
    """
    return np.random.default_rng([seed, _STREAMS[stream], *position])


def sample_task(
    rng: np.random.Generator, dataset: FewShotDataset, split: str, classes: int, examples: int
) -> np.ndarray:
    """Draw ``classes`` classes of a split and ``examples`` images of each, all distinct.

    Args:
        rng: Random generator; advanced.
        dataset: Where from.
        split: Name of the split.
        classes: Number of classes N; the label of a class is its place in the draw, 0 … N − 1.
        examples: Number of images of each class.

    Returns:
        int32 [classes, examples], rows of ``dataset.images``.

    Raises:
        ValueError: The split has fewer classes, or a drawn class fewer images.
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
    """Deal the examples of a task out in mini-batches.

    Without replacement (the paper's way) the examples are shuffled and dealt out, and shuffled
    again when they run out: a mini-batch may straddle two passes (25 examples, batch 15: the
    second mini-batch is 10 of the first pass and 5 of the second), and may then hold an example
    twice. With replacement every mini-batch is a fresh draw of distinct examples.

    Args:
        rng: Random generator; advanced.
        num_examples: Number of examples of the task, at least 1.
        batch: Size of a mini-batch, at least 1.
        steps: Number of mini-batches, at least 0.
        replacement: Which of the two ways.

    Returns:
        int32 [steps, batch], each entry in 0 … num_examples − 1.

    Raises:
        ValueError: With replacement, ``batch`` is above ``num_examples``.
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
    rng: np.random.Generator, dataset: FewShotDataset, config: Config, split: str = "train"
) -> TrainingTasks:
    """Draw the tasks of one meta-iteration.

    With a shared tail the last mini-batch, which matters to FOMAML and MAML, is dealt like the
    others; with a separate tail (``foml_tail`` = S) the last step sees exactly S examples of each
    class that the other steps never see (paper Sec. 6.3).

    Args:
        rng: Random generator; advanced.
        dataset: Where from.
        config: Supplies classes, train_shots, meta_batch, inner_iters, inner_batch,
            replacement and foml_tail.
        split: Split to draw the classes from.
    """
    inner, tail = config.inner, config.meta.foml_tail or 0
    steps, last = [], []
    for _ in range(config.meta.meta_batch):
        rows = sample_task(rng, dataset, split, config.task.classes, config.task.train_shots)
        images, labels = _labelled(rows[:, tail:])
        dealt = mini_batches(
            rng,
            len(images),
            inner.inner_batch,
            inner.inner_iters - (1 if tail else 0),
            replacement=inner.replacement,
        )
        steps.append((images[dealt], labels[dealt]))
        if tail:
            images, labels = _labelled(rows[:, :tail])
            last.append((images[None], labels[None]))
    return TrainingTasks(MiniBatches(*_stack(steps)), MiniBatches(*_stack(last)) if tail else None)


def evaluation_tasks(
    seed: int,
    stream: str,
    dataset: FewShotDataset,
    split: str,
    config: Config,
    positions: range,
) -> EvaluationTasks:
    """Draw evaluation tasks number ``positions`` of a stream.

    A task is classes × (shots + 1) images; the last of each class is held out to be predicted
    (paper Sec. 6.1). Task number i is the same however the tasks are grouped into calls.

    Args:
        seed: Seed of the evaluation.
        stream: ``"curve"`` or ``"evaluation"``.
        dataset: Where from.
        split: Split to draw the classes from.
        config: Supplies classes, shots, eval_batch, eval_iters and replacement.
        positions: Numbers of the tasks.
    """
    steps, supports, queries = [], [], []
    split_number = sorted(dataset.splits).index(split)
    for position in positions:
        rng = random_stream(seed, stream, split_number, position)
        rows = sample_task(rng, dataset, split, config.task.classes, config.task.shots + 1)
        images, labels = _labelled(rows[:, :-1])
        dealt = mini_batches(
            rng,
            len(images),
            config.eval.eval_batch,
            config.eval.eval_iters,
            replacement=config.inner.replacement,
        )
        steps.append((images[dealt], labels[dealt]))
        supports.append(images)
        queries.append(rows[:, -1])
    return EvaluationTasks(MiniBatches(*_stack(steps)), np.stack(supports), np.stack(queries))


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
    """Training tasks from your own arrays, for classification or regression.

    Args:
        rng: Random generator; advanced.
        inputs: [tasks, examples, ...], the inputs of each task.
        targets: [tasks, examples, ...], what the loss compares with: int labels or float values.
        batch: Size of a mini-batch, at least 1.
        steps: Number of inner steps k, at least 1.
        replacement: As for :func:`mini_batches`.
        tail: Inputs and targets of each task that the last of the steps sees, all of them, and
            the others do not (paper Sec. 6.3). Default: the last step is like the others.

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
        return table, TrainingTasks(_dealt(rng, rows, targets, batch, steps, replacement))
    table, (rows, tail_rows) = _table(inputs, targets, tail[0])
    if tail[0].shape[:2] != tail[1].shape[:2]:
        raise ValueError(
            "tail must be inputs and as many targets, each [tasks, examples, ...]. "
            f"Received: shapes {[a.shape for a in tail]}"
        )
    last = MiniBatches(tail_rows[:, None], tail[1][:, None])
    return table, TrainingTasks(_dealt(rng, rows, targets, batch, steps - 1, replacement), last)


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
    """Tasks to fine-tune on and predict, from your own arrays.

    Args:
        rng: Random generator; advanced.
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
    return table, EvaluationTasks(fine_tuning, rows, query_rows)


def _dealt(
    rng: np.random.Generator,
    rows: np.ndarray,
    targets: np.ndarray,
    batch: int,
    steps: int,
    replacement: bool,
) -> MiniBatches:
    places = [mini_batches(rng, rows.shape[1], batch, steps, replacement=replacement) for _ in rows]
    picked = np.take_along_axis(rows[:, None], np.stack(places), axis=2)
    return MiniBatches(picked, targets.reshape(-1, *targets.shape[2:])[picked])


def _table(
    inputs: np.ndarray, targets: np.ndarray, *more: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """All inputs in one table, and for each array the rows of its inputs, int32 [tasks, each]."""
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


def _permutations(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    ordered = np.broadcast_to(np.arange(length, dtype=np.int32), (count, length))
    return rng.permuted(ordered, axis=1)


def _labelled(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[classes, examples] → images and labels, each int32 [classes · examples]."""
    labels = np.repeat(np.arange(rows.shape[0], dtype=np.int32), rows.shape[1])
    return rows.ravel(), labels


def _stack(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*pairs, strict=True)
    return np.stack(images), np.stack(labels)
