"""A run from configuration to record, for ``run_omniglot.py`` and ``run_miniimagenet.py``."""

from __future__ import annotations

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.evaluation import Accuracy
from supervised_reptile.from_config import learner_from_config, model_from_config
from supervised_reptile.meta_learner import MetaLearner
from supervised_reptile.runs.callbacks import load_callbacks
from supervised_reptile.runs.checkpoints import RunDirectory
from supervised_reptile.runs.data_identity import identity_of
from supervised_reptile.runs.following import (
    check_flags,
    check_same_flags,
    follow,
    is_needed,
    order_start,
    order_stop,
)
from supervised_reptile.runs.opening import finished_result, open_directory
from supervised_reptile.runs.stages import (
    evaluate_and_record,
    load_data,
    record_path,
    restore,
    train,
)
from supervised_reptile.runs.trainer import Trainer
from supervised_reptile.startup import set_threads
from supervised_reptile.workers import Workers, cluster_from_environment


def run(config: Config, options: RunOptions) -> dict[str, Accuracy]:
    """Train (or restore) a learner, evaluate it on every split and write the record.

    Writes into ``options.checkpoint``: ``config.json``, checkpoints, ``curve.csv``, TensorBoard
    logs, ``model.keras`` (with the optimizer's state) and ``results.json``. With
    ``options.pretrained`` the record is named after the evaluation instead, so a training may have
    several. If the run is already finished, its recorded result is shown.

    In a cluster (``TF_CONFIG`` or Slurm, see ``docs/scaling.md``) this process is one of several
    workers. Only the chief reads and writes ``options.checkpoint``.

    Args:
        config: What to compute.
        options: Where and how.

    Returns:
        Accuracy of each split; nothing on workers that are not the chief.

    Raises:
        RunError: See ``runs.trainer.Trainer``.
        RunInterrupted: A signal stopped the training, which is saved.
        DatasetNotFoundError: The data set is missing.
        ConfigError: The data set is too small for the task.
    """
    cluster = cluster_from_environment()
    if cluster is None:
        return _run(config, options)
    check_flags(config, options, len(cluster.addresses))
    set_threads(*options.threads(config.task.dataset))
    workers = Workers(cluster)
    check_same_flags(workers, config, options)
    if workers.is_chief:
        results = _run(config, options, workers)
        order_stop(workers)
        return results
    if is_needed(workers):
        learner, dataset = _load(config, options, workers)
        follow(learner, dataset, config, options)
    return {}


def _run(
    config: Config, options: RunOptions, workers: Workers | None = None
) -> dict[str, Accuracy]:
    directory = open_directory(config, options)
    recorded = finished_result(directory, config, options)
    if recorded is not None:
        return recorded
    print(config.table(), flush=True)
    trainer = open_run(config, options, directory, workers)
    trained_with = None
    if options.pretrained:
        trained_with = restore(trainer, options)
    else:
        train(trainer, options)
    path = record_path(trainer, options)
    trainer.calls.test_begin()
    (accuracies,) = evaluate_and_record(trainer, [(config, path)], options, trained_with)
    trainer.calls.test_end({split: accuracy.mean for split, accuracy in accuracies.items()})
    return accuracies


def open_run(
    config: Config,
    options: RunOptions,
    directory: RunDirectory | None = None,
    workers: Workers | None = None,
) -> Trainer:
    """Load the data, build the model and the learner, and open the run's directory.

    Args:
        config: What to compute.
        options: Where and how.
        directory: The result of ``open_directory``, if it was already called.
        workers: The processes that share the tasks; ``None`` for this process alone.

    Raises:
        RunError: The directory of checkpoints cannot be used.
        DatasetNotFoundError: The data set is missing.
        ConfigError: The data set is too small for the task, or ``options.callbacks`` cannot be
            loaded.
    """
    directory = directory or open_directory(config, options)
    if workers is None:
        set_threads(*options.threads(config.task.dataset))
    callbacks = load_callbacks(options.callbacks)
    if workers is not None:
        order_start(workers)
    learner, dataset = _load(config, options, workers)
    return Trainer(learner, dataset, config, options, directory, callbacks)


def _load(
    config: Config, options: RunOptions, workers: Workers | None
) -> tuple[MetaLearner, FewShotDataset]:
    dataset = load_data(config, options)
    learner = learner_from_config(
        config,
        model_from_config(config),
        input_scale=dataset.pixel_scale,
        lanes=options.lanes(config.task.dataset),
        workers=workers,
    )
    if workers is not None:
        workers.check_agreement({"data": identity_of(dataset)})
    return learner, dataset
