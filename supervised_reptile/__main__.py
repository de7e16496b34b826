"""One command for all programs: ``supervised-reptile`` or ``python -m supervised_reptile``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import supervised_reptile.interrupts  # noqa: F401  (first: Ctrl-C while the rest is imported)
from supervised_reptile.config.command_line import run_program
from supervised_reptile.errors import ConfigError
from supervised_reptile.programs import COMMAND, PROGRAMS, shown_name


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Start the program that the first argument names.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    program, *words = sys.argv if argv is None else argv
    name = words[0] if words else "--help"
    if name in PROGRAMS:
        entry = PROGRAMS[name]
        module = importlib.import_module(f"supervised_reptile.{entry.module}")
        # The checkout's fetch_data.sh calls `python -m`.
        shown = shown_name(name) if Path(program).name == "__main__.py" else f"{COMMAND} {name}"
        getattr(module, entry.function)([shown, *words[1:]])

    def no_command() -> NoReturn:
        raise ConfigError(f"the command must be one of {', '.join(PROGRAMS)}. Received: {name!r}")

    words = [name] if name.startswith("-") else []
    run_program(no_command, {}, [COMMAND, *words], _overview())


def _overview() -> str:
    commands = "\n".join(f"  {name:<14}{entry.summary}" for name, entry in PROGRAMS.items())
    return f"""\
Reptile and first-order MAML for TensorFlow 2 / Keras 3.

    {COMMAND} COMMAND [--flag=value ...]

Commands:
{commands}

{COMMAND} COMMAND --help lists the flags of a command; --version prints the version."""


if __name__ == "__main__":
    main()
