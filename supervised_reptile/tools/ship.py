"""Add a finished run to the networks that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from supervised_reptile.config.command_line import Flag, run_program
from supervised_reptile.errors import RunError
from supervised_reptile.pretrained import ship
from supervised_reptile.programs import command

_FLAGS = {
    "run": Flag(None, "Folder of the run, a subfolder of reproduce's --runs.", str, required=True),
    "name": Flag(None, "Name of the network, such as omniglot-5way.", str, required=True),
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the program.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    description = f"""\
Add a finished run to the networks that come with the package.

    {command("ship")} RUN NAME
"""
    run_program(_ship, _FLAGS, argv, description, operands=("run", "name"))


def _ship(*, run: str, name: str) -> None:
    try:
        ship(Path(run), name)
    except ValueError as error:
        raise RunError(str(error)) from error


if __name__ == "__main__":
    main()
