"""Parts of figures that several experiments have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments import common
from supervised_reptile.runs.learning_curve import trailing_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXAMPLES = "examples.npz"
"""File of the examples that a figure shows."""


def plot_example(axes: Axes, examples: Mapping[str, np.ndarray], name: str, steps: int) -> None:
    """Draw an example of ``examples.npz`` before and after fine-tuning of ``steps``."""
    x, (before, after) = examples["x"], examples[f"{name}/predictions"]
    axes.plot(x, examples[f"{name}/true"], color="black", label="true")
    axes.plot(x, before, ":", color="C0", label="before")
    axes.plot(x, after, color="C1", label=f"after {steps} steps")
    axes.plot(*examples[f"{name}/sampled"], "x", color="black", label="sampled")
    axes.set(xlabel="x")


def plot_with_interval(
    axes: Axes, x: np.ndarray, mean: np.ndarray, half: np.ndarray, color: str, label: str = ""
) -> None:
    """Draw a curve, and shade its interval of ``half`` to each side."""
    axes.plot(x, mean, color=color, label=label, linewidth=1.3)
    axes.fill_between(x, mean - half, mean + half, color=color, alpha=0.25, linewidth=0)


def plot_curves(axes: Axes, folder: Path, names: Mapping[str, str] | None = None) -> None:
    """Draw the mean loss of ``curves.csv`` against inner steps, with a shaded interval.

    Args:
        axes: Where to draw.
        folder: Folder of the table, whose first column is a name.
        names: Titles of the names that have others in the figure.
    """
    rows = common.read_rows(folder / "curves.csv")
    first = next(iter(rows[0]))
    for number, name in enumerate(dict.fromkeys(row[first] for row in rows)):
        columns = ("step", "loss", "interval95")
        mine = [[float(row[c]) for c in columns] for row in rows if row[first] == name]
        plot_with_interval(axes, *np.transpose(mine), f"C{number}", (names or {}).get(name, name))
    axes.set(xlabel="inner steps on a test task", ylabel="mean squared error", yscale="log")
    axes.legend()


def smoothed(rows: Sequence[Mapping[str, str]], points: int) -> tuple[list[int], np.ndarray]:
    """Return iterations, and the mean test accuracy in percent of the last ``points`` rows.

    Args:
        rows: Rows of a learning curve, with "iteration" and "test".
        points: Rows in each mean, at least 1.
    """
    means = trailing_mean(np.array([100 * float(row["test"]) for row in rows]), points)
    return [int(row["iteration"]) for row in rows][points - 1 :], means
