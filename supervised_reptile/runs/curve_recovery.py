"""The points of a learning curve that was damaged, from TensorBoard's event files.

Which points a run has is known, and event files carry check sums.
"""

from __future__ import annotations

import contextlib
import csv
import math
import re
from pathlib import Path

from supervised_reptile.errors import RunError, printable
from supervised_reptile.runs.files import read_text, set_aside, write_table


def repair_curve(directory: Path, splits: tuple[str, ...], iteration: int, interval: int) -> None:
    """Check the learning curve of a run that is finished, and mend it if it was damaged.

    Args:
        directory: As for :class:`LearningCurve`.
        splits: Names of the splits.
        iteration: Meta-iterations done.
        interval: Meta-iterations from point to point.

    Raises:
        RunError: It cannot be written.
    """
    path, fields = directory / "curve.csv", fields_of(splits)
    rows = recovered_rows(directory, fields, range(0, iteration, interval))
    if not path.exists():
        write_table(path, fields, ([row[f] for f in fields] for row in rows))


def fields_of(splits: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the columns of ``curve.csv``."""
    return ("iteration", "seconds", "meta_step", "inner_loss", *splits)


def recovered_rows(
    directory: Path, fields: tuple[str, ...], expected: range
) -> list[dict[str, str]]:
    """The points that a run has behind it, from the table and the event files.

    A table that is damaged is renamed; one that merely lacks points is not.
    """
    if not expected:
        return []
    path = directory / "curve.csv"
    found, damaged = rows_of(path, fields)
    logged = _logged_points(directory, fields[4:])
    rows, changed, missing = [], [], []
    for iteration in expected:
        row, point = found.get(iteration), logged.get(iteration, {})
        if row is None or not _agrees(row, point):
            if point.keys() >= set(fields):
                row = {name: f"{point[name]:.6g}" for name in fields}
                row |= {"iteration": str(iteration), "seconds": f"{point['seconds']:.3f}"}
                changed.append(iteration)
            elif row is None:
                missing.append(iteration)
                continue
            else:  # Of version 0.1, whose events have no time.
                row |= {name: f"{point[name]:.6g}" for name in fields if name in point}
                changed.append(iteration)
        rows.append(row)
    if changed or missing or damaged:
        aside = ""
        if (changed or damaged) and path.exists():
            aside = f"; the old one is {printable(set_aside(path).name)}"
        print(
            f"note: {printable(path)} was damaged: {len(changed)} of {len(expected)} points "
            f"recovered from TensorBoard's logs, {len(missing)} missing{aside}"
        )
    return rows


def rows_of(path: Path, fields: tuple[str, ...]) -> tuple[dict[int, dict[str, str]], bool]:
    """Return the complete rows of a table by iteration, and whether the rest is damaged.

    An incomplete last line, without an end of line, is no damage: a killed process may leave one.
    """
    try:
        text = read_text(path)
    except RunError:
        return {}, path.exists()
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    rows, damaged = {}, not lines
    for row in csv.DictReader(lines):
        try:
            if tuple(row) != fields or not all(_is_number(row[name]) for name in fields):
                raise ValueError
            rows[int(row["iteration"])] = row
        except ValueError:
            damaged = True
    return rows, damaged


def _is_number(text: str | None) -> bool:
    return text is not None and re.fullmatch(r"nan|-?[\d.]+(e[+-]?\d+)?", text) is not None


def _agrees(row: dict[str, str], point: dict[str, float]) -> bool:
    """Whether a row equals the logged point, within its six digits and the log's float32."""
    for name, logged in point.items():
        written = float(row[name])
        if math.isnan(logged) or math.isnan(written):
            if math.isnan(logged) != math.isnan(written):
                return False
            continue
        digits = math.floor(math.log10(abs(logged))) - 5 if logged else -9
        unit = 0.001 if name == "seconds" else 10.0**digits
        if abs(written - logged) > 0.51 * unit + 2e-7 * abs(logged):
            return False
    return True


def _logged_points(directory: Path, splits: tuple[str, ...]) -> dict[int, dict[str, float]]:
    """Read the points in TensorBoard's event files, as far as they are readable."""
    import tensorflow as tf

    points: dict[int, dict[str, float]] = {}
    wanted = {split: {"accuracy": split} for split in splits}
    wanted["train"] |= {name: name for name in ("meta_step", "inner_loss", "seconds")}
    for split in splits:
        folder = directory / split
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        for file in files:
            if ".tfevents." not in file.name or not file.is_file():
                continue
            with contextlib.suppress(tf.errors.OpError):  # the rest of this file is damaged
                for record in tf.data.TFRecordDataset(str(file), buffer_size=2**18):
                    event = tf.compat.v1.Event.FromString(record.numpy())
                    for value in event.summary.value:
                        if value.tag in wanted[split]:
                            number = float(tf.make_ndarray(value.tensor))
                            points.setdefault(event.step, {})[wanted[split][value.tag]] = number
    for iteration, point in points.items():
        point["iteration"] = iteration
    return points
