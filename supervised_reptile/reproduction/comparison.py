"""The records of runs next to the published tables: means over seeds, differences, what was run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from supervised_reptile.config import Config
from supervised_reptile.reproduction.published import (
    EVALUATION_ONLY,
    INDEPENDENT_RUNS,
    ROWS,
    TRAINING_ONLY,
    Row,
    full_length,
    row_of,
)
from supervised_reptile.runs.files import read_json
from supervised_reptile.runs.learning_curve import first_reached, read_curve

TIME_WINDOW = 400
"""Number of points of a learning curve, each from one task, whose mean is compared with a target.

The mean of fewer points could reach it by chance.
"""
_MILESTONES = (90.0, 95.0)
_STATUS = ("full", "longer", "shortened", "unfinished", "not run")


def compare(root: Path) -> list[dict[str, Any]]:
    """Group the records below a folder by training and task, next to the published results.

    Runs that differ only in the seed form one entry. If a seed was evaluated more than once, its
    evaluation with the most tasks counts, and the others are separate entries. Every kind of task
    of every published row has at least one entry, with status "not run" if necessary. A training
    that was evaluated in another way than its row belongs to no row.

    Args:
        root: Folder that contains ``**/results*.json``.

    Returns:
        One mapping of plain values per entry, in the order of ``published.ROWS``, followed by
        entries without a row: ``row``, ``title``, ``dataset``, ``classes``, ``shots``,
        ``transductive``, ``published`` (list of ``mean``, ``spread``, ``source``; percent),
        ``independent`` (those of independent runs of the authors' program, percent), ``status``
        ("full", "longer", "shortened", "unfinished", "not run"); and if it was run
        ``meta_iters`` (the published length), ``iterations``, ``seeds``, ``accuracy`` (split ->
        ``mean``, ``spread`` over the seeds, ``interval95`` over the tasks of a seed, ``tasks``;
        percent), ``difference`` (test mean minus the published one, if "full"), ``hours``
        (training, mean over the seeds), ``records``.
    """
    groups: dict[tuple, list[tuple[str, dict]]] = {}
    for path, record in _records(root):
        name = path.relative_to(root.parent).as_posix()
        groups.setdefault(_group(record), []).append((name, record))
    each_seed_once = (part for group in groups.values() for part in _divided_by_seed(group))
    ran = sorted((_entry(group) for group in each_seed_once), key=_by_length)
    entries = []
    for row in ROWS:
        for task in row.tasks():
            head = _head_of_row(row, *task)
            entries += [e for e in ran if head.items() <= e.items()] or [
                head | {"status": "not run"}
            ]
    return entries + [entry for entry in ran if entry not in entries]


def _records(root: Path, pattern: str = "**/results*.json") -> list[tuple[Path, dict[str, Any]]]:
    """Return the records of runs below a folder, without those of experiments."""
    read = ((path, read_json(path)) for path in sorted(root.glob(pattern)))
    return [(path, record) for path, record in read if {"config", "iterations"} <= record.keys()]


def _by_length(entry: Mapping[str, Any]) -> tuple[int, int]:
    return _STATUS.index(entry["status"]), -entry["iterations"]


def _training(record: Mapping[str, Any]) -> Config:
    return Config.from_dict(record.get("trained_with", record["config"]))


def _group(record: Mapping[str, Any]) -> tuple:
    """Return the values that the runs of one entry share."""
    trained, evaluated = _training(record).flat(), Config.from_dict(record["config"]).flat()
    training = sorted((k, v) for k, v in trained.items() if k not in {*EVALUATION_ONLY, "seed"})
    other = {*TRAINING_ONLY, "seed", "eval_samples"}
    evaluation = sorted((k, v) for k, v in evaluated.items() if k not in other)
    return (*training, *evaluation, record["iterations"])


def _divided_by_seed(
    group: Sequence[tuple[str, dict[str, Any]]],
) -> list[list[tuple[str, dict[str, Any]]]]:
    """Divide the records of a group so that no part contains a seed twice."""
    parts: list[dict[int, tuple[str, dict[str, Any]]]] = []
    by_tasks = sorted(group, key=lambda each: -each[1]["accuracy"]["test"]["tasks"])
    for name, record in by_tasks:
        seed = _training(record).seed
        part = next((part for part in parts if seed not in part), None)
        if part is None:
            parts.append(part := {})
        part[seed] = name, record
    return [[part[seed] for seed in sorted(part)] for part in parts]


def _entry(group: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    records = [record for _, record in group]
    trained, evaluated = _training(records[0]), Config.from_dict(records[0]["config"])
    row, task = row_of(trained), (evaluated.task.shots, evaluated.eval.transductive)
    if row and row.evaluation(trained, *task, evaluated.eval.eval_samples).differences(
        evaluated, ignore=TRAINING_ONLY
    ):
        row = None
    head = _head_of_row(row, *task) if row else _head_of_training(trained, *task)
    full, iterations = full_length(trained), records[0]["iterations"]
    status = "full" if iterations == full else "shortened" if iterations < full else "longer"
    entry = head | {
        "status": status,
        "meta_iters": full,
        "iterations": iterations,
        "seeds": [_training(record).seed for record in records],
        "accuracy": {
            split: _over_seeds([record["accuracy"][split] for record in records])
            for split in records[0]["accuracy"]
        },
        "hours": statistics.fmean(r["training_seconds"] for r in records) / 3600,
        "records": [name for name, _ in group],
    }
    if iterations < trained.meta.meta_iters:
        entry["status"] = "unfinished"
    if head["published"] and entry["status"] == "full":
        entry["difference"] = entry["accuracy"]["test"]["mean"] - head["published"][0]["mean"]
    return entry


def _head_of_row(row: Row, shots: int, transductive: bool) -> dict[str, Any]:
    published = [
        {"mean": c.mean, "spread": c.spread, "source": c.source}
        for c in row.published(shots, transductive)
    ]
    what = {"row": row.name, "title": row.title, "dataset": row.dataset, "classes": row.classes}
    independent = INDEPENDENT_RUNS.get((row.name, shots, transductive), ())
    return what | {
        "shots": shots,
        "transductive": transductive,
        "published": published,
        "independent": list(independent),
    }


def _head_of_training(trained: Config, shots: int, transductive: bool) -> dict[str, Any]:
    """Return the head of an entry whose training belongs to no row."""
    algorithm = {"reptile": "Reptile"}.get(trained.meta.algorithm, trained.meta.algorithm.upper())
    optimizer = {"adam": ""}.get(trained.inner.inner_optimizer, trained.inner.inner_optimizer)
    what = {
        "row": None,
        "title": algorithm + (f", {optimizer} inside" if optimizer else ""),
        "dataset": trained.task.dataset,
        "classes": trained.task.classes,
    }
    return what | {
        "shots": shots,
        "transductive": transductive,
        "published": [],
        "independent": [],
    }


def _over_seeds(accuracies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean of the runs and, like the paper's ±, their standard deviation (n − 1)."""
    means = [100 * a["mean"] for a in accuracies]
    intervals = [100 * a["interval95"] for a in accuracies if a["interval95"] is not None]
    return {
        "mean": statistics.fmean(means),
        "spread": statistics.stdev(means) if len(means) > 1 else None,
        "interval95": statistics.fmean(intervals) if intervals else None,
        "tasks": min(a["tasks"] for a in accuracies),
    }


def times_to_accuracy(root: Path) -> list[dict[str, Any]]:
    """Find when the learning curves of finished, published runs reached certain accuracies.

    Args:
        root: Folder that contains ``**/curve.csv`` next to records.

    Returns:
        One mapping per run and target, with ``row``, ``seed``, ``shots`` and ``transductive`` of
        the curve, ``target`` (percent, test classes), and ``iteration`` and ``hours``, which are
        ``None`` if the curve never reached the target. The curve is smoothed by a trailing mean
        over ``TIME_WINDOW`` points. ``at_the_latest`` is true if the first such mean has already
        reached the target.
    """
    found = []
    for path in sorted(root.rglob("curve.csv")):
        records = _records(path.parent, "results*.json")
        if not records:
            continue
        trained = _training(records[0][1])
        row = row_of(trained)
        lengths = {records[0][1]["iterations"], trained.meta.meta_iters}
        if row is None or lengths != {row.meta_iters}:
            continue
        shots, transductive = trained.task.shots, trained.eval.transductive
        task = {"shots": shots, "transductive": transductive}
        shown = row.published(shots, transductive)
        curve = read_curve(path)
        means = (cell.mean for cell in shown[:1] if cell.mean is not None)
        for target in sorted({*_MILESTONES, *means}):
            reached = first_reached(curve, "test", target / 100, TIME_WINDOW)
            when: dict[str, Any] = {"iteration": None, "hours": None, "at_the_latest": False}
            if reached is not None:
                when["iteration"], when["hours"] = reached[0], reached[1] / 3600
                when["at_the_latest"] = bool(reached[0] == curve["iteration"][TIME_WINDOW - 1])
            found.append({"row": row.name, "seed": trained.seed, **task, "target": target} | when)
    return found
