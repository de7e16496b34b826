"""What every experiment needs: its flags, its tables and its figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervised_reptile.config.command_line import run_program
from supervised_reptile.errors import RunError
from supervised_reptile.runs.files import write_whole
from supervised_reptile.startup import import_tensorflow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = ("", "Folder for tables and figures; empty: results/ and the experiment's name.")
SEED = (0, "Seed of everything random, at least 0.")


def start(main: Callable[..., None], flags: Mapping[str, tuple[Any, str]]) -> None:
    """Run an experiment from the command line.

    Args:
        main: Called with the value of each flag, by name.
        flags: Name of each flag to its default and its meaning.
    """
    run_program(main, flags)


def load_tensorflow() -> None:
    """Import TensorFlow, quietly; with many learners in a process it advises against retracing."""
    import_tensorflow()
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")


def results_folder(given: str, name: str) -> Path:
    """The folder for tables and figures, made if need be.

    Raises:
        RunError: It cannot be made.
    """
    folder = Path(given or Path("results") / name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--results: cannot write {folder}: {error}") from error
    return folder


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write what was computed, with what and where."""
    from supervised_reptile.runs.record import environment

    text = json.dumps({**values, "environment": environment()}, indent=2, ensure_ascii=False)
    write_whole(path, text + "\n")


def new_figure(width: float = 7, height: float = 4) -> Figure:
    """A figure of its own, in inches: no global state, no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as PNG and SVG; the same figure gives the same bytes of SVG."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=150)
    print(f"figure: {folder / name}.png, .svg")
