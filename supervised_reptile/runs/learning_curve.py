"""The learning curve of a run, as a table and for TensorBoard."""

from __future__ import annotations

import collections
import csv
from pathlib import Path

import numpy as np

from supervised_reptile.errors import RunError
from supervised_reptile.runs.files import write_table

# Running accuracies are means over this many points, not over the whole history.
_RUNNING_WINDOW = 50


class LearningCurve:
    """The learning curve: ``curve.csv`` and TensorBoard scalars, a writer for each split.

    Each accuracy is of the N predictions of one task, as in the authors' program, and so coarse.

    Args:
        directory: Where to write; must exist.
        splits: Names of the splits, ``"train"`` among them.
        iteration: Meta-iterations done so far. Points from there on, which a killed run may have
            left, will be computed again and are dropped.

    Raises:
        RunError: TensorBoard's logs cannot be written.
    """

    def __init__(self, directory: Path, splits: tuple[str, ...], iteration: int) -> None:
        import tensorflow as tf  # not at the top: who reads curves does without

        self._path = directory / "curve.csv"
        self._splits = splits
        self._fields = ("iteration", "seconds", "meta_step", "inner_loss", *splits)
        self._recent = {split: collections.deque(maxlen=_RUNNING_WINDOW) for split in splits}
        rows = self._rows_before(iteration)
        for row in rows[-_RUNNING_WINDOW:]:
            for split in splits:
                self._recent[split].append(float(row[split]))
        self._last = (int(rows[-1]["iteration"]), float(rows[-1]["seconds"])) if rows else (0, 0.0)
        write_table(self._path, self._fields, ([row[f] for f in self._fields] for row in rows))
        self._file = self._path.open("a", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        try:
            self._logs = {s: tf.summary.create_file_writer(str(directory / s)) for s in splits}
        except tf.errors.OpError as error:
            raise RunError(
                "--checkpoint: cannot write TensorBoard's logs into the folders "
                f"{', '.join(splits)} of {directory}"
            ) from error

    def __enter__(self) -> LearningCurve:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        for log in self._logs.values():
            log.close()

    def add(self, iteration: int, seconds: float, **values: float) -> None:
        """Write one point; ``values`` hold meta_step, inner_loss and one accuracy a split."""
        import tensorflow as tf

        self._writer.writerow(
            [iteration, f"{seconds:.3f}", *(f"{values[f]:.6g}" for f in self._fields[2:])]
        )
        self._file.flush()
        iterations, elapsed = iteration - self._last[0], seconds - self._last[1]
        self._last = (iteration, seconds)
        for split in self._splits:
            self._recent[split].append(values[split])
            with self._logs[split].as_default(step=iteration):
                tf.summary.scalar("accuracy", values[split])
        with self._logs["train"].as_default(step=iteration):
            tf.summary.scalar("meta_step", values["meta_step"])
            tf.summary.scalar("inner_loss", values["inner_loss"])
            if iterations and elapsed > 0:
                tf.summary.scalar("iterations_per_second", iterations / elapsed)

    def running_accuracies(self) -> str:
        """Mean accuracy of each split over the last points, in words."""
        means = ((s, 100 * float(np.mean(v))) for s, v in self._recent.items())
        return "  ".join(f"{split} {mean:.1f} %" for split, mean in means)

    def _rows_before(self, iteration: int) -> list[dict[str, str]]:
        """Points of the iterations the checkpoint has done; later ones will be done again."""
        if not iteration or not self._path.exists():
            return []
        with self._path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        # A killed process may have left half a line at the end.
        whole = (r for r in rows if None not in r.values() and set(r) == set(self._fields))
        return [r for r in whole if int(r["iteration"]) < iteration]


def read_curve(path: Path) -> dict[str, np.ndarray]:
    """Read a ``curve.csv``.

    Returns:
        Column name to float64 [points]: iteration, seconds, meta_step, inner_loss, each split.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]} if rows else {}


def trailing_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each value and those before it, ``window`` in all.

    Args:
        values: float64 [points].
        window: At least 1.

    Returns:
        float64 [points − window + 1], nothing where there are fewer points.
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[window:] - sums[:-window]) / window


def first_reached(
    curve: dict[str, np.ndarray], split: str, target: float, window: int
) -> tuple[int, float] | None:
    """When the trailing mean of a split's accuracy first was at least ``target``.

    Args:
        curve: As `read_curve` gives it.
        split: Name of the split.
        target: Accuracy in [0, 1].
        window: Points in the mean, at least 1.

    Returns:
        Meta-iterations done and seconds taken by then, or ``None``.
    """
    # The sums of floats stray by some 1e-12: a mean of 0.95 must count as 0.95.
    above = np.flatnonzero(trailing_mean(curve[split], window) >= target - 1e-9)
    if not len(above):
        return None
    at = above[0] + window - 1
    return int(curve["iteration"][at]), float(curve["seconds"][at])
