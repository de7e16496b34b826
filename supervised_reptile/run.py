"""One run from configuration to record: load, train or restore, evaluate, write down."""

from __future__ import annotations

import dataclasses
import signal
import time
import warnings

import tensorflow as tf

from supervised_reptile.config import Config, RunOptions, check_task
from supervised_reptile.datasets import FewShotDataset, load_dataset
from supervised_reptile.errors import RunInterrupted
from supervised_reptile.evaluation import Accuracy, evaluate
from supervised_reptile.learners import learner_from_config
from supervised_reptile.models import model_from_config
from supervised_reptile.paper import DatasetFacts, dataset_facts
from supervised_reptile.results import write_record
from supervised_reptile.training import Trainer

# Each is a part of the graph of its own: many would take long to trace.
_MOST_LANES = 8


def run(config: Config, options: RunOptions) -> dict[str, Accuracy]:
    """Train (or restore) a learner, evaluate it on every split and write the record.

    Leaves in ``options.checkpoint``: ``config.json``, checkpoints, ``curve.csv``, TensorBoard
    logs, ``model.keras`` and ``results.json`` (or, with ``options.pretrained``, a results file
    named for the evaluation, so that several evaluations of one training stand side by side).

    Args:
        config: What to compute.
        options: Where and how.

    Returns:
        Accuracy of each split.

    Raises:
        RunError: See ``training.Trainer``.
        RunInterrupted: A signal stopped the training; it is saved.
        DatasetNotFoundError: The data set is not there.
        ConfigError: It is too small for the task.
    """
    intra_op, inter_op = options.threads(config.task.dataset)
    set_threads(intra_op, inter_op)
    print(config.table(), flush=True)
    dataset = load_dataset(
        config.task.dataset,
        data_dir=options.data_dir,
        seed=config.seed,
        image_size=config.model.image_size,
        resize=config.model.resize,
        progress=options.progress,
    )
    check_task(config.task, _facts_of_loaded(dataset))
    learner = learner_from_config(
        config,
        model_from_config(config),
        input_scale=dataset.pixel_scale,
        lanes=min(inter_op, _MOST_LANES),  # independent tasks side by side
    )
    trainer = Trainer(learner, dataset, config, options)
    trained_with, name = None, "results.json"
    if options.pretrained:
        trained_with, name = trainer.restore_for_evaluation(), _evaluation_name(config)
    else:
        trainer.prepare()
        trainer.train()
        learner.model.save(trainer.directory / "model.keras")

    started = time.perf_counter()
    accuracies = {}
    try:
        for split in dataset.splits:
            accuracies[split] = evaluate(
                learner,
                dataset.images,
                dataset,
                split,
                config,
                tasks_per_call=options.eval_tasks_per_batch,
                progress=options.progress,
            )
            print(f"{split} accuracy: {accuracies[split]}", flush=True)
    except KeyboardInterrupt:
        raise RunInterrupted(
            "the training is complete and saved; the same command evaluates it", signal.SIGINT
        ) from None
    path = trainer.directory / name
    write_record(
        path,
        config,
        accuracies,
        iterations=trainer.iteration,
        training_seconds=trainer.seconds,
        evaluation_seconds=time.perf_counter() - started,
        trained_with=trained_with,
    )
    print(f"record: {path}")
    return accuracies


def _facts_of_loaded(dataset: FewShotDataset) -> DatasetFacts:
    """What only loading tells of a data set: its sizes."""
    return dataclasses.replace(
        dataset_facts(dataset.name),
        example="images of its smallest class",
        examples=int(min(dataset.class_sizes(split).min() for split in dataset.splits)),
        splits={split: len(ids) for split, ids in dataset.splits.items()},
    )


def set_threads(intra_op: int, inter_op: int) -> None:
    """Set TensorFlow's thread pools; must come before TensorFlow's first operation.

    Where TensorFlow runs already, in a notebook say, its pools stay as they are, with a warning.

    Args:
        intra_op: Threads inside one operation, at least 1.
        inter_op: Operations run at once, at least 1.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op)
        tf.config.threading.set_inter_op_parallelism_threads(inter_op)
    except RuntimeError:
        warnings.warn(
            "TensorFlow runs already: intra_op_threads and inter_op_threads have no effect on it",
            RuntimeWarning,
            stacklevel=2,
        )


def _evaluation_name(config: Config) -> str:
    task, mode = config.task, "transductive" if config.eval.transductive else "non-transductive"
    return f"results-{task.shots}shot-{task.classes}way-{mode}.json"
