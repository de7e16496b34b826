"""Find the run or shipped network that a command refers to, before any data are read."""

from __future__ import annotations

import os
import re
from pathlib import Path

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.errors import RunError, printable
from supervised_reptile.evaluation import Accuracy
from supervised_reptile.pretrained import network_called, pretrained_names, training_of
from supervised_reptile.runs.checkpoints import RunDirectory
from supervised_reptile.runs.curve_recovery import repair_curve
from supervised_reptile.runs.record import recorded_accuracies

PACKAGE = "package:"
"""Prefix of a shipped network's name, for use when a folder has the same name."""

# Settings that an evaluation must share with the training. Another seed would mean another split,
# and so a test on training classes.
_PRETRAINED_MUST_MATCH = (
    *("dataset", "classes", "filters", "image_size", "resize", "freeze"),
    *("inner_optimizer", "momentum", "seed"),
)


def open_directory(config: Config, options: RunOptions) -> RunDirectory:
    """Return the directory where a run trains, evaluates or records an evaluation.

    An existing directory is locked for this process if the run trains there.

    Args:
        config: What to compute.
        options: Supplies ``checkpoint``, ``pretrained`` and ``resume``.

    Raises:
        RunError: The options do not suit the directory.
    """
    if not options.pretrained:
        directory = RunDirectory(Path(options.checkpoint))
        directory.lock()
        if options.resume:
            directory.check(config)
        return directory
    if network := shipped_network(options.checkpoint):
        check_evaluable(config, training_of(network), f"the network {network}")
        return RunDirectory(Path(f"{network}-evaluations"))
    directory = RunDirectory(Path(options.checkpoint))
    trained = directory.saved_config()
    if trained is None:
        raise RunError(
            f"--pretrained: no checkpoint in {directory.path}; train one first, or name another "
            "directory, or with --checkpoint one of the networks that come with the package: "
            f"{', '.join(pretrained_names())}"
        )
    check_evaluable(config, trained, f"the checkpoint in {directory.path}")
    return directory


def shipped_network(checkpoint: str) -> str | None:
    """Return the shipped network that ``--checkpoint`` names; ``None`` for a folder.

    Args:
        checkpoint: A name, which may end in the shots, or ``"package:NAME"``.

    Raises:
        RunError: There is no such network, or a folder of that name holds a run.
    """
    given = checkpoint.removeprefix(PACKAGE)
    is_path = os.sep in checkpoint or bool(os.altsep and os.altsep in checkpoint)
    explicit = checkpoint.startswith(PACKAGE)
    similar = re.sub(r"-\d+shot$", "", given) in {*pretrained_names()}
    if not explicit and (is_path or not (similar or given in pretrained_names())):
        return None
    folder = RunDirectory(Path(checkpoint))
    is_run = not explicit and ((folder.path / "config.json").exists() or folder.newest is not None)
    try:
        network = network_called(given)
    except ValueError as error:
        if is_run:
            return None
        raise RunError(f"--checkpoint: {error}") from error
    if is_run:
        raise RunError(
            f"--checkpoint: {checkpoint} is a network that comes with the package and also a "
            f"folder here that holds a run. Use --checkpoint .{os.sep}{checkpoint} for the folder, "
            f"--checkpoint {PACKAGE}{checkpoint} for the network"
        )
    return network


def check_evaluable(config: Config, trained: Config, what: str) -> None:
    """Raise ``RunError`` if weights cannot be evaluated with a configuration.

    Args:
        config: Configuration of the evaluation.
        trained: Configuration of the training.
        what: Description of the network, for the message.
    """
    ours, theirs = config.flat(), trained.flat()
    wrong = [name for name in _PRETRAINED_MUST_MATCH if ours[name] != theirs[name]]
    if wrong:
        raise RunError(
            f"--pretrained: {what} was trained with "
            + ", ".join(f"--{name}={theirs[name]} (received {ours[name]})" for name in wrong)
        )


def finished_result(
    directory: RunDirectory, config: Config, options: RunOptions
) -> dict[str, Accuracy] | None:
    """Return the recorded result of a finished run; ``None`` if there is work to do.

    Args:
        directory: Directory of the run.
        config: What to compute.
        options: Supplies ``pretrained``, which requests a new evaluation, and ``resume``.
    """
    total = config.meta.meta_iters
    if options.pretrained or not options.resume or directory.newest_iteration != total:
        return None
    path = directory.path / "results.json"
    accuracies = recorded_accuracies(path, config)
    if accuracies is None or not (directory.path / "model.keras").exists():
        return None
    repair_curve(directory.path, tuple(accuracies), total, config.eval.eval_interval)
    print(
        f"already finished: {total:,} of {total:,} meta-iterations; here is its result, from "
        f"{printable(path)}. Use --pretrained to evaluate it again"
    )
    for split, accuracy in accuracies.items():
        print(f"{split} accuracy: {accuracy}", flush=True)
    return accuracies
