"""The common style of the figures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

BLUE, VERMILION = "#0072B2", "#D55E00"
COLORS = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Colors that readers with any kind of color vision can tell apart (Okabe and Ito 2008)."""


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Draw figures in the project's style; as a context or as a decorator of a function."""
    import matplotlib
    from cycler import cycler

    style: dict[Any, Any] = {
        "axes.prop_cycle": cycler(color=COLORS),
        "axes.grid": True,
        "grid.alpha": 0.3,
        "legend.fontsize": "small",
        "savefig.dpi": 150,
    }
    with matplotlib.rc_context(style):
        yield
