"""Evaluate shipped networks again, and compare with their records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.errors import RunError
from supervised_reptile.evaluation import Accuracy, evaluate_each_way
from supervised_reptile.from_config import evaluation_spec
from supervised_reptile.main import open_run
from supervised_reptile.pretrained import model_facts, pretrained_names, training_of
from supervised_reptile.progress import mode_of
from supervised_reptile.reproduction.published import Row, row_of
from supervised_reptile.runs.opening import PACKAGE
from supervised_reptile.runs.stages import restore, setting_name


def networks_of(name: str) -> list[str]:
    """Return the shipped networks of a row, with all its seeds, or the network of that name.

    Raises:
        RunError: There is none.
    """
    names = pretrained_names()
    found = [each for each in names if each == name or each.startswith(f"{name}-seed")]
    if not found:
        raise RunError(f"--verify: must be one of {', '.join(names)}. Received: {name!r}")
    return found


def network_of(row: Row, seed: int) -> str:
    """Return the shipped network of a row's training in full with a seed.

    Raises:
        RunError: There is none.
    """
    for name in pretrained_names():
        if training_of(name) == row.training(seed):
            return name
    raise RunError(
        f"--pretrained: no network that comes with the package is row {row.name} with seed {seed}"
    )


def verify(name: str, *, tasks: int, data_dir: str, progress: bool = True) -> None:
    """Evaluate a network on test classes, on each kind of task in its records.

    The tasks are the first of the recorded ones. The same number of tasks on the same kind of
    machine therefore gives the same accuracy. With fewer tasks, it must agree within the 95 %
    interval of the difference of two independent samples.

    Args:
        name: A name from :func:`networks_of`.
        tasks: Number of tasks of each kind, at least 1.
        data_dir: Folder of the data sets.
        progress: Whether to show progress bars.

    Raises:
        RunError: An accuracy does not agree.
        DatasetNotFoundError: The data set is missing.
    """
    facts = model_facts(name)
    training = Config.from_dict(facts["training"])
    row = row_of(training)
    if row is None:
        raise RunError(f"--verify: {name} belongs to no published row")
    options = RunOptions(
        checkpoint=f"{PACKAGE}{name}", pretrained=True, data_dir=data_dir, progress=progress
    )
    wrong, trainer = [], None
    for shots in dict.fromkeys(each["shots"] for each in facts["evaluations"]):
        recorded = [each for each in facts["evaluations"] if each["shots"] == shots]
        ways = [each["transductive"] for each in recorded]
        config = row.evaluation(training, shots, ways[0], tasks)
        trainer = trainer or open_run(config, options)
        trainer.config = config
        restore(trainer, options)
        found = evaluate_each_way(
            trainer.learner,
            trainer.dataset,
            "test",
            evaluation_spec(config),
            ways,
            tasks=tasks,
            seed=config.seed,
            progress=mode_of(progress),
        )
        for outcome, way, each in zip(found, ways, recorded, strict=True):
            what = f"{name}, {shots}-shot, {setting_name(way)}"
            agrees = does_agree(outcome.accuracy, each["accuracy"]["test"])
            print(f"{what}: {_compared(outcome.accuracy, each['accuracy']['test'], agrees)}")
            if not agrees:
                wrong.append(what)
    if wrong:
        raise RunError(f"not as recorded: {'; '.join(wrong)}")


def does_agree(found: Accuracy, recorded: Mapping[str, Any]) -> bool:
    """Whether two accuracies differ by less than the 95 % interval of their difference."""
    interval = math.hypot(found.interval95, recorded["interval95"] or math.inf)
    return abs(found.mean - recorded["mean"]) <= interval


def _compared(found: Accuracy, recorded: Mapping[str, Any], agrees: bool) -> str:
    then = f"{100 * recorded['mean']:.2f} % ± {100 * recorded['interval95']:.2f}"
    return f"recorded {then}, now {found}: {'agrees' if agrees else 'DOES NOT AGREE'}"
