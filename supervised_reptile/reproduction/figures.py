"""The figure of a task, as a PNG file."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from supervised_reptile.figures import BLUE, VERMILION


def task_figure(
    path: Path,
    support: np.ndarray,
    queries: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    title: str,
) -> None:
    """Draw one evaluation task: its labeled images, its queries and the predictions.

    Args:
        path: The image to write.
        support: uint8 [classes, shots, height, width, channels], the labeled images.
        queries: uint8 [queries, height, width, channels], held-out images, the same number of each
            class, those of class 0 first.
        probabilities: float [queries, classes], each query's probability of each class.
        class_names: Name of each class.
        title: Heading.
    """
    from matplotlib.figure import Figure

    classes, shots = support.shape[:2]
    columns = min(shots, 10)
    names = [f"{number} {_words(name)}" for number, name in enumerate(class_names, start=1)]
    numbers = range(1, classes + 1)
    # At least 900 pixels wide.
    size = max(7.6, 4.4 + 1.2 * columns), 0.8 + 1.4 * len(queries)
    figure = Figure(figsize=size, layout="constrained")
    ratios = {"width_ratios": [1] * (columns + 1) + [2]}
    grid = figure.subplots(len(queries), columns + 2, squeeze=False, gridspec_kw=ratios)
    per_class = len(queries) // classes
    predicted = np.argmax(probabilities, axis=1)
    for number, row in enumerate(grid):
        c = number // per_class
        for axes, image in zip(row, [*support[c, :columns], queries[number]], strict=False):
            if number % per_class and axes is not row[columns]:  # the class has its row above
                axes.set_axis_off()
                continue
            # Characters are stored as 0 and 1, photographs as bytes.
            axes.imshow(image.squeeze(), cmap="gray", vmax=max(1, int(image.max())))
            axes.set(xticks=[], yticks=[])
        label = _in_lines(names[c])
        row[0].set_ylabel(label, fontsize="small", rotation=0, ha="right", va="center")
        right = predicted[number] == c
        color = BLUE if right else VERMILION
        for side in row[columns].spines.values():
            side.set(color=color, linewidth=3)
        answer = _in_lines(f"{'✓' if right else '✗'} {names[predicted[number]]}")
        row[columns].set_xlabel(answer, color=color, fontsize="small")
        bars = row[columns + 1].barh(numbers, 100 * probabilities[number], color="0.7")
        bars[c].set_edgecolor("black")  # the true class
        bars[predicted[number]].set_facecolor(color)
        row[columns + 1].set(xlim=(0, 100), yticks=numbers)
        row[columns + 1].invert_yaxis()
        row[columns + 1].tick_params(labelsize="x-small" if classes <= 8 else 4)
    grid[0][0].set_title("labeled image" if columns == 1 else "labeled images", fontsize="small")
    grid[0][columns].set_title("query", fontsize="small")
    grid[0][columns + 1].set_title("probability of each class in %", fontsize="small")
    # About 11 letters per inch: the heading of a narrow figure takes several lines.
    figure.suptitle(textwrap.fill(title, int(11 * figure.get_figwidth())), fontsize="medium")
    figure.savefig(path, dpi=120)


def _words(name: str) -> str:
    """Return a class name without slashes and underscores, so that it can be broken into lines."""
    return name.replace("/", " ").replace("_", " ")


def _in_lines(name: str) -> str:
    """Break a class name into lines that are about as wide as an image."""
    return textwrap.fill(name, 17, max_lines=3, placeholder=" …")
