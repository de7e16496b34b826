"""A run from configuration to record, for ``run_omniglot.py`` and ``run_miniimagenet.py``."""

from __future__ import annotations

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.evaluation import Accuracy
from supervised_reptile.from_config import learner_from_config, model_from_config
from supervised_reptile.runs.callbacks import load_callbacks
from supervised_reptile.runs.checkpoints import RunDirectory
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


def run(config: Config, options: RunOptions) -> dict[str, Accuracy]:
    """Train (or restore) a learner, evaluate it on every split and write the record.

    Writes into ``options.checkpoint``: ``config.json``, checkpoints, ``curve.csv``, TensorBoard
    logs, ``model.keras`` (with the optimizer's state) and ``results.json``. With
    ``options.pretrained`` the record is named after the evaluation instead, so a training may have
    several. If the run is already finished, its recorded result is shown.

    Args:
        config: What to compute.
        options: Where and how.

    Returns:
        Accuracy of each split.

    Raises:
        RunError: See ``runs.trainer.Trainer``.
        RunInterrupted: A signal stopped the training, which is saved.
        DatasetNotFoundError: The data set is missing.
        ConfigError: The data set is too small for the task.
    """
    directory = open_directory(config, options)
    recorded = finished_result(directory, config, options)
    if recorded is not None:
        return recorded
    print(config.table(), flush=True)
    trainer = open_run(config, options, directory)
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


def open_run(config: Config, options: RunOptions, directory: RunDirectory | None = None) -> Trainer:
    """Load the data, build the model and the learner, and open the run's directory.

    Args:
        config: What to compute.
        options: Where and how.
        directory: The result of ``open_directory``, if it was already called.

    Raises:
        RunError: The directory of checkpoints cannot be used.
        DatasetNotFoundError: The data set is missing.
        ConfigError: The data set is too small for the task, or ``options.callbacks`` cannot be
            loaded.
    """
    directory = directory or open_directory(config, options)
    set_threads(*options.threads(config.task.dataset))
    callbacks = load_callbacks(options.callbacks)
    dataset = load_data(config, options)
    model = model_from_config(config)
    learner = learner_from_config(
        config, model, input_scale=dataset.pixel_scale, lanes=options.lanes(config.task.dataset)
    )
    return Trainer(learner, dataset, config, options, directory, callbacks)
