"""Figures of runs, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from supervised_reptile.curve import trailing_mean


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
        curves: Label of each run to its curve, as ``curve.read_curve`` gives it.
        splits: The splits to draw; a line style each.
        window: Points in the trailing mean, at least 1; fewer where a curve is shorter.
        title: Heading.
        published: Published accuracy in percent, drawn as a level.
    """
    # On an Axes of its own, without pyplot: no global state, no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for number, (label, curve) in enumerate(curves.items()):
        points = min(window, len(curve["iteration"]))
        for split, style in zip(splits, ("-", "--", ":"), strict=False):
            axes.plot(
                curve["iteration"][points - 1 :],
                100 * trailing_mean(curve[split], points),
                style,
                color=f"C{number}",
                linewidth=1,
                label=f"{label}, {split} classes",
            )
    if published is not None:
        axes.axhline(published, color="0.4", linewidth=1, label=f"published: {published:g} %")
    axes.set(xlabel="meta-iterations", ylabel=f"accuracy in %, mean of {window} tasks", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
