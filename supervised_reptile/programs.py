"""The programs of the package, and how to start each from where the user is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

COMMAND = "supervised-reptile"
"""The console command of an installed package."""

_FOLDER = Path(__file__).resolve().parents[1]
CHECKOUT = _FOLDER if (_FOLDER / "run_omniglot.py").is_file() else None
"""Folder of the checkout that the package lies in; None for a package installed without one."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A program of the package.

    Args:
        summary: What it does, in a line.
        module: Module of the package that holds its function.
        function: The function, which takes the program's name and its arguments.
        script: What starts it in a checkout; empty where a checkout has no script for it.
    """

    summary: str
    module: str
    function: str = "main"
    script: str = ""


PROGRAMS = {
    "omniglot": Program(
        "Train and evaluate on Omniglot, or on --dataset=glyphs, which needs no data.",
        "tools.train",
        "omniglot",
        "python run_omniglot.py",
    ),
    "miniimagenet": Program(
        "Train and evaluate on Mini-ImageNet, or on images of your own.",
        "tools.train",
        "miniimagenet",
        "python run_miniimagenet.py",
    ),
    "fetch": Program("Fetch and prepare a data set.", "tools.fetch", script="./fetch_data.sh"),
    "example": Program("Draw an evaluation task with its predictions.", "tools.example_task"),
    "demo": Program("Serve the browser pages: draw and classify; how Reptile moves.", "tools.demo"),
    "export": Program("Export a trained network for the browser.", "tools.export"),
    "reproduce": Program(
        "Reproduce the published tables.", "reproduction.program", script="python reproduce.py"
    ),
    "ship": Program("Add a finished run to the networks in the package.", "tools.ship"),
}
"""Name of each command -> its program."""


def command(name: str) -> str:
    """Returns what starts a program where the user is.

    Args:
        name: A key of `PROGRAMS`.

    Returns:
        str, such as ``./fetch_data.sh`` in a checkout and ``supervised-reptile fetch`` elsewhere.
    """
    if CHECKOUT is None:
        return f"{COMMAND} {name}"
    return PROGRAMS[name].script or f"python -m supervised_reptile {name}"


def shown_name(name: str) -> str:
    """Returns the name of a program in its error messages, such as ``fetch_data.sh``."""
    script = PROGRAMS[name].script if CHECKOUT else ""
    return Path(script.split()[-1]).name if script else f"{COMMAND} {name}"
