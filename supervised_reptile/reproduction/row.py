"""One seed of a published row: train once, evaluate every cell, keep the records in results."""

from __future__ import annotations

import shutil
from pathlib import Path

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.config.paper import dataset_title
from supervised_reptile.main import open_run
from supervised_reptile.reproduction.published import Row, run_name
from supervised_reptile.runs.curve_figure import learning_curve_figure
from supervised_reptile.runs.learning_curve import read_curve
from supervised_reptile.runs.record import is_record_of
from supervised_reptile.runs.stages import (
    evaluate_and_record,
    evaluation_record,
    restore,
    train,
)

# Points of a learning curve, each from one task, in the moving average of its figure.
_FIGURE_WINDOW = 100

RUNS = "runs"
"""Subfolder of the results for the records of trainings."""


def reproduce(
    row: Row, training: Config, options: RunOptions, *, eval_samples: int, results: Path
) -> None:
    """Train, evaluate and record; finished parts are skipped.

    Writes into ``results/runs/<row>/seed<seed>``: a record of each cell, ``config.json``,
    ``curve.csv`` and ``curve.png``. With ``options.pretrained`` it evaluates a trained network and
    writes only the records.

    Args:
        row: The row.
        training: Configuration to train, from ``row.training``.
        options: Where the checkpoints or the trained network are, and how to run.
        eval_samples: Number of tasks per split and cell.
        results: Folder of all records.

    Raises:
        RunError: See ``Trainer``.
        RunInterrupted: A signal stopped it; the same call continues.
        DatasetNotFoundError: The data set is missing.
    """
    trainer = open_run(training, options)
    if options.pretrained:
        restore(trainer, options)
    else:
        train(trainer, options)
    directory, records = trainer.directory, []
    for shots in dict.fromkeys(shots for shots, _ in row.tasks()):
        settings = [transductive for k, transductive in row.tasks() if k == shots]
        configs = [row.evaluation(training, shots, t, eval_samples) for t in settings]
        evaluations = [(c, directory / evaluation_record(c)) for c in configs]
        if not all(is_record_of(path, config) for config, path in evaluations):
            evaluate_and_record(trainer, evaluations, options, trained_with=training)
        records += [path for _, path in evaluations]
    folder = results / RUNS / run_name(row, training)
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*records, *(path.with_suffix(".npz") for path in records)):
        shutil.copy(path, folder)
    if not options.pretrained:
        for name in ("config.json", "data.json", "curve.csv"):
            shutil.copy(directory / name, folder)
        draw_curve(row, training, folder)


def draw_curve(row: Row, training: Config, results: Path) -> None:
    """Draw ``curve.png`` from the ``curve.csv`` next to it.

    Args:
        row: The row.
        training: Configuration of the training.
        results: Folder of the run's records.
    """
    curve = read_curve(results / "curve.csv")
    task, transductive = training.task, training.eval.transductive
    shown = row.published(task.shots, transductive)
    learning_curve_figure(
        results / "curve.png",
        {f"seed {training.seed}": curve},
        splits=[s for s in ("test", "validation", "train") if s in curve],
        window=_FIGURE_WINDOW,
        title=f"{row.title}, {dataset_title(row.dataset)} {task.shots}-shot {task.classes}-way"
        + (", transductive" if transductive else ""),
        published=shown[0].mean if shown else None,
    )
