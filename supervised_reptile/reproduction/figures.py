"""Figures of runs, as PNG files."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from supervised_reptile.runs.learning_curve import trailing_mean


def learning_curve_figure(
    path: Path,
    curves: Mapping[str, Mapping[str, np.ndarray]],
    *,
    splits: Sequence[str],
    window: int,
    title: str,
    published: float | None = None,
) -> None:
    """Draw accuracy against meta-iterations.

    Args:
        path: The image to write.
        curves: Curve of each run, from ``read_curve``, by label.
        splits: Splits to draw, each with its own line style.
        window: Points in the trailing mean, at least 1; at most a quarter of the points.
        title: Heading.
        published: Published accuracy in percent, drawn as a horizontal line.
    """
    # Without pyplot: no global state, no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    shortest = min(len(curve["iteration"]) for curve in curves.values())
    points = min(window, max(1, shortest // 4))
    for number, (label, curve) in enumerate(curves.items()):
        for split, style in zip(splits, ("-", "--", ":"), strict=False):
            axes.plot(
                curve["iteration"][points - 1 :],
                100 * trailing_mean(curve[split], points),
                style,
                marker="." if shortest < 2 else None,  # a line needs two points
                color=f"C{number}",
                linewidth=1,
                label=f"{label}, {split} classes",
            )
    if published is not None:
        axes.axhline(published, color="0.4", linewidth=1, label=f"published: {published:g} %")
    axes.set(xlabel="meta-iterations", ylabel=f"accuracy in %, mean of {points} tasks", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


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
        queries: uint8 [classes, height, width, channels], one held-out image per class, in order.
        probabilities: float [classes, classes], each query's probability of each class.
        class_names: Name of each class.
        title: Heading.
    """
    from matplotlib.figure import Figure

    classes, shots = support.shape[:2]
    columns = min(shots, 10)
    figure = Figure(figsize=(3.6 + 1.2 * columns, 0.8 + 1.4 * classes), layout="constrained")
    grid = figure.subplots(classes, columns + 2, squeeze=False)
    predicted = np.argmax(probabilities, axis=1)
    for c, row in enumerate(grid):
        for axes, image in zip(row, [*support[c, :columns], queries[c]], strict=False):
            # Characters are stored as 0 and 1, photographs as bytes.
            axes.imshow(image.squeeze(), cmap="gray", vmax=max(1, int(image.max())))
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(class_names[c], fontsize="small")
        color = "tab:green" if predicted[c] == c else "tab:red"
        for side in row[columns].spines.values():
            side.set(color=color, linewidth=3)
        row[columns].set_xlabel(f"→ {class_names[predicted[c]]}", color=color, fontsize="small")
        bars = row[columns + 1].barh(range(classes), 100 * probabilities[c], color="0.7")
        bars[c].set_edgecolor("black")  # the true class
        bars[predicted[c]].set_facecolor(color)
        row[columns + 1].set(xlim=(0, 100), yticks=range(classes), yticklabels=class_names)
        row[columns + 1].invert_yaxis()
        row[columns + 1].tick_params(labelsize="x-small")
    grid[0][0].set_title("labeled image" if columns == 1 else "labeled images", fontsize="small")
    grid[0][columns].set_title("query", fontsize="small")
    grid[0][columns + 1].set_title("probability in %", fontsize="small")
    # About 11 letters per inch: the heading of a narrow figure takes several lines.
    figure.suptitle(textwrap.fill(title, int(11 * figure.get_figwidth())), fontsize="medium")
    figure.savefig(path, dpi=120)
