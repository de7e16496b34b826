"""Training and evaluation from the command line: the programs omniglot and miniimagenet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.config.flags import run_configured
from supervised_reptile.programs import command
from supervised_reptile.startup import import_tensorflow


def omniglot(argv: Sequence[str] | None = None) -> NoReturn:
    """Run ``run_omniglot.py``.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    description = f"""\
Train and evaluate Reptile (or first-order MAML) on Omniglot.

    {command("omniglot")} --shots 1 --classes 5 --transductive

Prepare the data with {command("fetch")}, or use --dataset glyphs, which needs none.
"""
    run_configured(_run, ("omniglot", "glyphs"), argv, description)


def miniimagenet(argv: Sequence[str] | None = None) -> NoReturn:
    """Run ``run_miniimagenet.py``.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    program = command("miniimagenet")
    description = f"""\
Train and evaluate Reptile (or first-order MAML) on Mini-ImageNet, or on images of your own.

    {program} --shots 1 --transductive
    {program} --data_dir my/flowers

my/flowers has train/, val/ and test/, with a folder for each class. Prepare Mini-ImageNet with
{command("fetch")} miniimagenet.
"""
    run_configured(_run, ("miniimagenet",), argv, description, own_images=True)


def _run(config: Config, options: RunOptions) -> None:
    # TensorFlow takes seconds to load, so import it only after the flags are checked.
    import_tensorflow()
    from supervised_reptile.main import run

    run(config, options)
