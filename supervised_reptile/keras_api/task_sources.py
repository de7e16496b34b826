"""The user's own tasks, from a function, a list, a generator or a ``tf.data.Dataset``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import NamedTuple

import numpy as np
import tensorflow as tf

TaskSource = Callable[[np.random.Generator], Sequence] | Iterable[Sequence]
"""A source of tasks: (inputs, targets) or (inputs, targets, query inputs, query targets).

A function is called for each task with a seeded ``np.random.Generator``, so a run can be repeated.
An iterable is repeated as often as necessary, except for a generator, which must be long enough.
"""


class Task(NamedTuple):
    """One task, after its checks.

    Attributes:
        inputs: [examples, ...], the inputs to learn from.
        targets: [examples, ...], int32 labels or float32 values.
        query_inputs: [queries, ...] or ``None``.
        query_targets: [queries, ...] or ``None``.
    """

    inputs: np.ndarray
    targets: np.ndarray
    query_inputs: np.ndarray | None = None
    query_targets: np.ndarray | None = None

    @property
    def shapes(self) -> list[tuple[int, ...] | None]:
        """Shapes of the parts, which must be equal within a meta-batch."""
        return [None if part is None else part.shape for part in self]

    @property
    def queries(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the inputs and targets of the queries."""
        if self.query_inputs is None or self.query_targets is None:
            return None
        return self.query_inputs, self.query_targets


class TaskStream:
    """Take tasks from a source and check each.

    Args:
        source: See :data:`TaskSource`.
        what: Name of the source in errors.
        input_shape: Shape of one input, with ``None`` for any size; or ``None`` for any shape.
        classes: Number of classes N if targets are labels 0 … N − 1, else ``None``.

    Raises:
        ValueError: The source is neither callable nor iterable.
    """

    def __init__(
        self,
        source: TaskSource,
        what: str,
        input_shape: Sequence[int | None] | None,
        classes: int | None = None,
    ) -> None:
        if not callable(source) and not isinstance(source, Iterable):
            raise ValueError(
                f"{what} must be a function of a random generator or an iterable. "
                f"Received: {type(source).__name__}"
            )
        self._source, self._what = source, what
        self._input_shape, self._classes = input_shape, classes
        self._iterator: Iterator | None = None
        self._taken = 0

    @property
    def length(self) -> int | None:
        """Number of tasks in one pass over the source, ``None`` if unknown or infinite."""
        if isinstance(self._source, tf.data.Dataset):
            cardinality = int(self._source.cardinality())
            return cardinality if cardinality >= 0 else None
        return len(self._source) if isinstance(self._source, Sized) else None

    def take(self, count: int, rng: np.random.Generator) -> list[Task]:
        """Return the next tasks.

        Args:
            count: Number of tasks.
            rng: Random generator for a task function.

        Raises:
            ValueError: A task is invalid, or the source ran out.
        """
        return [self._checked(self._next(rng)) for _ in range(count)]

    def _next(self, rng: np.random.Generator) -> Sequence:
        if callable(self._source):
            return self._source(rng)
        for _ in range(2):  # at the end of a pass, start again
            if self._iterator is None:
                self._iterator = iter(self._source)
            for task in self._iterator:
                self._taken += 1
                return task
            if self._iterator is self._source:
                break
            self._iterator = None
        raise ValueError(
            f"{self._what} ran out after {self._taken} tasks: give a source that can be "
            "repeated, or ask for fewer steps"
        )

    def _checked(self, parts: Sequence) -> Task:
        if not isinstance(parts, tuple | list) or len(parts) not in (2, 4):
            raise self._wrong(
                "be (inputs, targets) or (inputs, targets, query inputs, query targets), without "
                "weights of samples or classes (a loss of your own can weigh)",
                f"{len(parts)} parts" if isinstance(parts, tuple | list) else type(parts).__name__,
            )
        for part in parts:
            if isinstance(part, dict | tuple):
                raise self._wrong(
                    "have one array of inputs and one of targets, for models of one input and one "
                    "output",
                    f"a {type(part).__name__}",
                )
        arrays = [self._array(part) for part in parts]
        for inputs, targets in zip(arrays[::2], arrays[1::2], strict=True):
            if not inputs.ndim or not targets.ndim or not len(inputs) == len(targets) > 0:
                rule = "have as many targets as inputs, at least one"
                raise self._wrong(rule, f"shapes {inputs.shape} and {targets.shape}")
            wanted = self._input_shape
            if wanted is not None and not fits_shape(inputs.shape[1:], wanted):
                shape = ", ".join(map(str, ("examples", *wanted)))
                raise self._wrong(f"have inputs [{shape}]", f"shape {inputs.shape}")
            if self._classes is not None:
                integers = np.issubdtype(targets.dtype, np.integer)
                if not integers or targets.min() < 0 or targets.max() >= self._classes:
                    found = f"{targets.dtype} in {targets.min()} … {targets.max()}"
                    raise self._wrong(f"have integer labels in 0 … {self._classes - 1}", found)
        return Task(*arrays)

    def _array(self, part: object) -> np.ndarray:
        """Convert a part to an array of a type that TensorFlow supports."""
        array = np.asarray(part)
        if array.dtype.kind not in "biuf":
            rule = "hold numbers (turn names of classes into 0 … N − 1 with np.unique)"
            raise self._wrong(rule, f"an array of type {array.dtype}")
        if array.dtype.kind in "iu" and array.dtype.itemsize > 2:
            low, high = (array.min(), array.max()) if array.size else (0, 0)
            if low < -(2**31) or high >= 2**31:
                rule = "hold integers of 32 bits (give larger ones as floats, scaled)"
                raise self._wrong(rule, f"{array.dtype} in {low} … {high}")
            return array.astype(np.int32, copy=False)
        return array.astype(np.float32) if array.dtype == np.float64 else array

    def _wrong(self, rule: str, found: str) -> ValueError:
        return ValueError(f"a task of {self._what} must {rule}. Received: {found}")


def same_shape_groups(tasks: Sequence[Task], largest: int) -> Iterator[list[Task]]:
    """Yield runs of tasks of equal shapes, at most ``largest`` at a time."""
    for _, run in itertools.groupby(tasks, key=lambda task: task.shapes):
        while group := list(itertools.islice(run, largest)):
            yield group


def stacked(tasks: Sequence[Task]) -> Task:
    """Stack tasks of equal shapes into arrays [tasks, examples, ...].

    Raises:
        ValueError: Their shapes differ.
    """
    for task in tasks[1:]:
        if task.shapes != tasks[0].shapes:
            raise ValueError(
                "tasks in one meta-batch must have equal shapes. "
                f"Received: {tasks[0].shapes} and {task.shapes}"
            )
    parts = zip(*tasks, strict=True)
    return Task(*(np.stack(part) for part in parts if part[0] is not None))


def fits_shape(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    """Whether a shape is the expected one, in which ``None`` means any size."""
    return len(shape) == len(wanted) and all(
        want in (None, size) for size, want in zip(shape, wanted, strict=True)
    )
