"""The other experiments of the paper, those of the review, and a few of our own, by name.

    python -m experiments NAME [--flags]

NAME --help lists the flags of an experiment, and docs/experiments.md has what each found.
"""

import dataclasses
import importlib
import inspect
import sys
import textwrap
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

from supervised_reptile.config.command_line import Flag, run_program
from supervised_reptile.config.declaration import Checked, default_of, meaning
from supervised_reptile.errors import ConfigError

EXPERIMENTS = (
    *("sine", "gradient-combinations", "overlap", "theory", "manifolds"),
    *("optimizers", "mixture", "surface", "pretraining", "ablations", "rounding", "precision"),
    *("paired", "draw"),
)
"""Names of the experiments. Each is a module of this package with a ``run(settings, place)``, whose
two parameters are of classes with declared settings: their fields are the experiment's flags."""


def find_experiment(name: str) -> ModuleType:
    """Return the module of an experiment.

    Args:
        name: One of :data:`EXPERIMENTS`; underscores are as good as hyphens.

    Raises:
        ConfigError: There is none of that name.
    """
    if name.replace("_", "-") not in EXPERIMENTS:
        raise ConfigError(f"NAME: must be one of {', '.join(EXPERIMENTS)}. Received: {name!r}")
    return importlib.import_module(f"experiments.{name.replace('-', '_')}")


def start(name: str, argv: Sequence[str]) -> NoReturn:
    """Run an experiment from the command line, and exit.

    Args:
        name: The experiment's.
        argv: The program's name and the experiment's flags.
    """
    experiment = find_experiment(name)
    kinds = [p.annotation for p in inspect.signature(experiment.run).parameters.values()]

    def run(**values: Any) -> None:
        experiment.run(*(kind(**{name: values[name] for name in flags_of(kind)}) for kind in kinds))

    flags = {name: flag for kind in kinds for name, flag in flags_of(kind).items()}
    run_program(run, flags, argv, experiment.__doc__)


def flags_of(kind: type[Checked]) -> dict[str, Flag]:
    """Return the flags that set the fields of a class with declared settings, by name."""
    return {
        item.name: Flag(default_of(item), meaning(item), item.type)
        for item in dataclasses.fields(kind)
    }


def overview() -> str:
    """Return how the command is used, and a line for each experiment."""
    lines = [__doc__]
    for name in EXPERIMENTS:
        summary = find_experiment(name).__doc__.partition("\n")[0]
        lines += textwrap.wrap(f"  {name:<22} {summary}", 96, subsequent_indent=" " * 25)
    return "\n".join(lines)


def main(argv: Sequence[str]) -> NoReturn:
    """Run the experiment that the first argument names, or list them all, and exit.

    Args:
        argv: The program's name and its arguments.
    """
    _, *words = argv
    name = words[0] if words else "--help"
    if name.replace("_", "-") in EXPERIMENTS:
        start(name, [f"experiments {name}", *words[1:]])
    words = [name] if name.startswith("-") else []
    run_program(lambda: find_experiment(name), {}, ["experiments", *words], overview())


if __name__ == "__main__":
    main(sys.argv)
