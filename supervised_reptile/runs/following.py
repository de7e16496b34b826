"""A run on several workers: the chief gives orders, the others follow and write nothing."""

from __future__ import annotations

import json
from importlib.metadata import version

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.errors import ConfigError
from supervised_reptile.evaluation import evaluate_each_way
from supervised_reptile.from_config import evaluation_spec, meta_step_from_config, training_spec
from supervised_reptile.meta_learner import MetaLearner
from supervised_reptile.training import meta_train
from supervised_reptile.workers import Workers

_TRAIN, _EVALUATE, _STOP = "train", "evaluate", "stop"


def check_flags(config: Config, options: RunOptions, count: int) -> None:
    """Check that a number of workers can share a run.

    Raises:
        ConfigError: There are too few tasks for them.
    """
    meta = config.meta
    for name, value in (("parallel_tasks", meta.parallel_tasks), ("meta_batch", meta.meta_batch)):
        if value < count and not options.pretrained:
            raise ConfigError(
                f"--{name}: must be at least the number of workers, {count}, each of which runs a "
                f"task at a time. Received: {value}"
            )


def check_same_flags(workers: Workers, config: Config, options: RunOptions) -> None:
    """Check that all workers have the same flags and versions.

    Raises:
        RunError: They have not.
    """
    packages = {
        "supervised-reptile": version("supervised-reptile"),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
    flags = {f"--{name}": value for name, value in config.flat().items()}
    flags |= {f"--{n}": getattr(options, n) for n in ("pretrained", "eval_tasks_per_batch")}
    workers.check_agreement(flags | packages)


def order_start(workers: Workers) -> None:
    """Let the other workers load the data, because there is work to do."""
    workers.from_chief(b"start")


def is_needed(workers: Workers) -> bool:
    """Whether the chief has work to do: the result of its first order."""
    return workers.from_chief() == b"start"


def order_training(learner: MetaLearner, iteration: int) -> None:
    """Let the other workers train from the chief's state at a meta-iteration."""
    _order(learner, _TRAIN, iteration=iteration)


def order_evaluation(
    learner: MetaLearner, config: Config, split: str, settings: list[bool]
) -> None:
    """Let the other workers evaluate their share of the tasks from the chief's state."""
    _order(learner, _EVALUATE, config=config.to_dict(), split=split, transductive=settings)


def order_stop(workers: Workers) -> None:
    """Let the other workers end."""
    workers.from_chief(json.dumps({"do": _STOP}).encode())


def _order(learner: MetaLearner, what: str, **details: object) -> None:
    if learner.workers is not None:
        learner.workers.from_chief(json.dumps({"do": what, **details}).encode())
        learner.workers.share_state(_state(learner))


def _state(learner: MetaLearner) -> list[tf.Variable]:
    outer = learner.outer_optimizer
    variables = [*learner.model.variables, *learner.inner_optimizer.variables]
    return [v.value for v in (*variables, *(outer.variables if outer else ()))]


def follow(
    learner: MetaLearner, dataset: FewShotDataset, config: Config, options: RunOptions
) -> None:
    """Do what the chief orders, until it ends.

    Args:
        learner: The learner, with its workers.
        dataset: The data.
        config: The run's configuration.
        options: Supplies ``eval_tasks_per_batch``.

    Raises:
        RunError: Another worker has stopped.
    """
    workers = learner.workers
    if workers is None:
        raise ValueError("learner must have workers. Received: a learner without")
    while True:
        order = json.loads(workers.from_chief())
        if order["do"] == _STOP:
            return
        workers.share_state(_state(learner))
        if order["do"] == _TRAIN:
            for _ in meta_train(
                learner,
                dataset,
                training_spec(config),
                iterations=range(order["iteration"], config.meta.meta_iters),
                meta_batch=config.meta.meta_batch,
                meta_step=meta_step_from_config(config),
                seed=config.seed,
            ):
                pass
        else:
            evaluated = Config.from_dict(order["config"])
            evaluate_each_way(
                learner,
                dataset,
                order["split"],
                evaluation_spec(evaluated),
                order["transductive"],
                tasks=evaluated.eval.eval_samples,
                seed=evaluated.seed,
                tasks_per_call=options.eval_tasks_per_batch,
                progress=False,
            )
