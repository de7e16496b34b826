"""The learning curve of a run, as a table and for TensorBoard."""

from __future__ import annotations

import collections
import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from supervised_reptile.config import Config
from supervised_reptile.errors import RunError
from supervised_reptile.runs.curve_recovery import fields_of, recovered_rows
from supervised_reptile.runs.files import read_text, reason_of, write_table, writing

# Running accuracies are means over this many points, not over the whole history.
_RUNNING_WINDOW = 50


class LearningCurve:
    """The learning curve: ``curve.csv`` and TensorBoard's scalars, with a writer per split.

    Each accuracy comes from the N predictions of one task, as in the authors' program, so it is
    coarse. TensorBoard also shows the running mean.

    The points that a run must have are known. Points that are missing from ``curve.csv``, or differ
    from TensorBoard's event files (which have checksums), are restored from these files. Points
    that cannot be recovered are reported, and the damaged table is kept next to the new one.

    Args:
        directory: Existing directory to write to.
        splits: Names of the splits, including ``"train"``.
        iteration: Number of finished meta-iterations. Later points, which a killed run may have
            left, are dropped because they will be computed again.
        interval: Meta-iterations between points.

    Raises:
        RunError: The table or TensorBoard's logs cannot be written.
    """

    def __init__(
        self, directory: Path, splits: tuple[str, ...], iteration: int, interval: int
    ) -> None:
        import tensorflow as tf  # not at the top: reading curves does not need it

        self._path = directory / "curve.csv"
        self._splits = splits
        self._fields = fields_of(splits)
        self._recent: dict[str, collections.deque[float]] = {
            split: collections.deque(maxlen=_RUNNING_WINDOW) for split in splits
        }
        rows = recovered_rows(directory, self._fields, range(0, iteration, interval))
        for row in rows[-_RUNNING_WINDOW:]:
            for split in splits:
                self._recent[split].append(float(row[split]))
        self._last = (int(rows[-1]["iteration"]), float(rows[-1]["seconds"])) if rows else (0, 0.0)
        write_table(self._path, self._fields, ([row[f] for f in self._fields] for row in rows))
        with writing(self._path):
            self._file = self._path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._tensorboard = (
            f"--checkpoint: cannot write TensorBoard's logs into the folders {', '.join(splits)} "
            f"of {directory}: "
        )
        with self._writing_logs():
            self._logs = {s: tf.summary.create_file_writer(str(directory / s)) for s in splits}

    def __enter__(self) -> LearningCurve:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._file.close()
        try:
            with self._writing_logs():
                for log in self._logs.values():
                    log.close()
        except RunError:
            if kind is None:
                raise

    def add(self, iteration: int, seconds: float, **values: float) -> None:
        """Write one point; ``values`` are meta_step, inner_loss and one accuracy per split.

        Raises:
            RunError: The point cannot be written.
        """
        import tensorflow as tf

        with writing(self._path):
            self._writer.writerow(
                [iteration, f"{seconds:.3f}", *(f"{values[f]:.6g}" for f in self._fields[2:])]
            )
            self._file.flush()
        iterations, elapsed = iteration - self._last[0], seconds - self._last[1]
        self._last = (iteration, seconds)
        scalars = {split: {"accuracy": values[split]} for split in self._splits}
        for split in self._splits:
            self._recent[split].append(values[split])
            scalars[split]["running_accuracy"] = self._running_mean(split)
        scalars["train"] |= {n: values[n] for n in ("meta_step", "inner_loss")}
        scalars["train"]["seconds"] = seconds
        if iterations and elapsed > 0:
            scalars["train"]["iterations_per_second"] = iterations / elapsed
        with self._writing_logs():
            for split, named in scalars.items():
                # From NumPy: TensorFlow keeps a tensor for every new Python number.
                with self._logs[split].as_default(step=np.asarray(iteration, np.int64)):
                    for name, value in named.items():
                        tf.summary.scalar(name, np.float32(value))

    def running_accuracies(self) -> str:
        """Return the mean accuracy of each split over the last points, as text."""
        return "  ".join(f"{s} {100 * self._running_mean(s):.1f} %" for s in self._recent)

    def _running_mean(self, split: str) -> float:
        # A point that was not finite counts as wrong.
        return float(np.mean(np.nan_to_num(self._recent[split]))) if self._recent[split] else 0.0

    @contextlib.contextmanager
    def _writing_logs(self) -> Iterator[None]:
        import tensorflow as tf

        try:
            yield
        except (tf.errors.OpError, OSError) as error:
            raise RunError(self._tensorboard + reason_of(error)) from error


def log_settings(directory: Path, config: Config) -> None:
    """Log a configuration for TensorBoard, as text and as hyper-parameters, once.

    Args:
        directory: Directory of the run.
        config: Its configuration.

    Raises:
        RunError: The log cannot be written.
    """
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    if any(".tfevents." in path.name for path in directory.iterdir()):
        return
    values = {n: v if isinstance(v, bool | int | float | str) else str(v)
              for n, v in config.flat().items()}  # fmt: skip
    lines = ["| setting | value |", "|---|---|", *(f"| {n} | {v} |" for n, v in values.items())]
    with writing(directory, tf.errors.OpError):
        with tf.summary.create_file_writer(str(directory)).as_default(step=0) as log:
            tf.summary.text("configuration", "\n".join(lines))
            api.hparams(values)
        log.close()


def read_curve(path: Path) -> dict[str, np.ndarray]:
    """Read a ``curve.csv``.

    Returns:
        float64 [points] for each column: iteration, seconds, meta_step, inner_loss, and each split.

    Raises:
        RunError: The file cannot be read, or is not such a table.
    """
    rows = list(csv.DictReader(read_text(path).splitlines()))
    try:
        return {n: np.array([float(row[n]) for row in rows]) for n in rows[0]} if rows else {}
    except (TypeError, ValueError) as error:
        raise RunError(f"cannot read {path}: not a table of numbers: {error}") from error


def trailing_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Compute the mean of every ``window`` consecutive values.

    Args:
        values: float64 [points].
        window: At least 1.

    Returns:
        float64 [points − window + 1], empty if there are fewer points.
    """
    # A point that was not finite counts as wrong.
    sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values))])
    return (sums[window:] - sums[:-window]) / window


def trailing_interval(values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the trailing mean and half the width of its 95 % interval.

    The interval is that of the mean of independent tasks, 1.96 standard errors.

    Args:
        values: float64 [points].
        window: At least 1; the interval of a single point is taken as 0.

    Returns:
        Mean and half width, float64 [points − window + 1] each.
    """
    mean = trailing_mean(values, window)
    squares = trailing_mean(np.square(np.nan_to_num(values)), window)
    variance = np.maximum(squares - mean**2, 0) * window / max(1, window - 1)
    return mean, 1.96 * np.sqrt(variance / window)


def first_reached(
    curve: dict[str, np.ndarray], split: str, target: float, window: int
) -> tuple[int, float] | None:
    """Find when the trailing mean of a split's accuracy first reached ``target``.

    Args:
        curve: The result of ``read_curve``.
        split: Name of the split.
        target: Accuracy in [0, 1].
        window: Points in the mean, at least 1.

    Returns:
        Meta-iterations and seconds until then, or ``None`` if never.
    """
    # Sums of floats are off by about 1e-12: a mean of 0.95 must count as 0.95.
    above = np.flatnonzero(trailing_mean(curve[split], window) >= target - 1e-9)
    if not len(above):
        return None
    at = above[0] + window - 1
    return int(curve["iteration"][at]), float(curve["seconds"][at])
