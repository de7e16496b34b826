"""The programs of the package, and the command that starts each of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

COMMAND = "supervised-reptile"
"""The console command of an installed package."""

_FOLDER = Path(__file__).resolve().parents[1]
CHECKOUT = _FOLDER if (_FOLDER / "run_omniglot.py").is_file() else None
"""Folder of the checkout that contains the package; ``None`` for an installed package."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A program of the package.

    Args:
        summary: What it does, in one line.
        module: Module of the package that contains its function.
        function: Name of the function, which takes the program's name and arguments.
        script: Command that starts it in a checkout; empty if there is no script for it.
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
    "launch": Program("Train or evaluate on several processes of this machine.", "tools.launch"),
    "fetch": Program("Fetch and prepare a data set.", "tools.fetch", script="./fetch_data.sh"),
    "example": Program("Draw an evaluation task and its predictions.", "tools.example_task"),
    "demo": Program("Serve the browser pages: draw and classify; how Reptile moves.", "tools.demo"),
    "export": Program("Export a trained network for the browser.", "tools.export"),
    "reproduce": Program(
        "Reproduce the published tables.", "reproduction.program", script="python reproduce.py"
    ),
    "ship": Program("Add a finished run to the networks in the package.", "tools.ship"),
}
"""Program of each command."""


def command(name: str) -> str:
    """Return the command that starts a program, in a checkout or an installed package.

    Args:
        name: A key of ``PROGRAMS``.

    Returns:
        The command, e.g. ``./fetch_data.sh`` in a checkout, else ``supervised-reptile fetch``.
    """
    if CHECKOUT is None:
        return f"{COMMAND} {name}"
    return PROGRAMS[name].script or f"python -m supervised_reptile {name}"


def shown_name(name: str) -> str:
    """Return the name of a program in its error messages, such as ``fetch_data.sh``."""
    script = PROGRAMS[name].script if CHECKOUT else ""
    return Path(script.split()[-1]).name if script else f"{COMMAND} {name}"
