"""The learning curve of a run as a picture, ``curve.png``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from supervised_reptile.config import Config
from supervised_reptile.config.paper import dataset_title
from supervised_reptile.figures import figure_style
from supervised_reptile.runs.files import writing
from supervised_reptile.runs.learning_curve import read_curve, trailing_interval

_SECONDS = 120  # between two drawings, which take about half a second
_WINDOW = 100


class CurveFigure:
    """Draws ``curve.png`` from ``curve.csv`` while a run goes on, every two minutes.

    Args:
        directory: Directory of the run.
        config: Its configuration, for the title.
    """

    def __init__(self, directory: Path, config: Config) -> None:
        self._directory, self._config = directory, config
        self._due = time.monotonic() + _SECONDS

    def draw_if_due(self) -> None:
        """Draw if the last drawing is two minutes old.

        Raises:
            RunError: The image cannot be written.
        """
        if time.monotonic() > self._due:
            draw_curve_of_run(self._directory, self._config)
            self._due = time.monotonic() + _SECONDS


def draw_curve_of_run(directory: Path, config: Config) -> None:
    """Draw ``curve.png`` from the ``curve.csv`` next to it.

    Args:
        directory: Directory of the run.
        config: Its configuration, for the title.

    Raises:
        RunError: The table cannot be read, or the image cannot be written.
    """
    curve, task = read_curve(directory / "curve.csv"), config.task
    if not curve:
        return
    learning_curve_figure(
        directory / "curve.png",
        {f"seed {config.seed}": curve},
        splits=[name for name in ("test", "validation", "train") if name in curve],
        window=_WINDOW,
        title=f"{config.meta.algorithm}, {dataset_title(task.dataset)} "
        f"{task.shots}-shot {task.classes}-way",
    )


@figure_style()
def learning_curve_figure(
    path: Path,
    curves: Mapping[str, Mapping[str, np.ndarray]],
    *,
    splits: Sequence[str],
    window: int,
    title: str,
    published: float | None = None,
) -> None:
    """Draw accuracy against meta-iterations: the trailing mean and its 95 % interval.

    Args:
        path: The image to write.
        curves: Curve of each run, from ``read_curve``, by label.
        splits: Splits to draw, each with its own line style.
        window: Points in the trailing mean, at least 1; at most a quarter of the points.
        title: Heading.
        published: Published accuracy in percent, drawn as a horizontal line.

    Raises:
        RunError: The image cannot be written.
    """
    # Without pyplot: no global state, no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    shortest = min(len(curve["iteration"]) for curve in curves.values())
    points = min(window, max(1, shortest // 4))
    for number, (label, curve) in enumerate(curves.items()):
        for split, style in zip(splits, ("-", "--", ":"), strict=False):
            iterations = curve["iteration"][points - 1 :]
            mean, margin = trailing_interval(curve[split], points)
            color = f"C{number}"
            axes.fill_between(
                iterations,
                100 * np.clip(mean - margin, 0, 1),
                100 * np.clip(mean + margin, 0, 1),
                color=color,
                alpha=0.15,
                linewidth=0,
            )
            axes.plot(
                iterations,
                100 * mean,
                style,
                marker="." if shortest < 2 else None,  # a line needs two points
                color=color,
                linewidth=1,
                label=f"{label}, {split} classes",
            )
    if published is not None:
        axes.axhline(published, color="0.4", linewidth=1, label=f"published: {published:g} %")
    ylabel = f"accuracy in %, mean of {points} tasks and 95 % interval"
    axes.set(xlabel="meta-iterations", ylabel=ylabel, title=title)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend()
    part = path.with_name(path.name + ".part")
    with writing(path):
        figure.savefig(part, format="png")
        part.replace(path)
