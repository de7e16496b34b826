"""The records of runs beside the published tables: means over seeds, differences, what was run.

`reproduce.py` writes what this module makes of the records under ``results/``.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from supervised_reptile.config import Config
from supervised_reptile.curve import first_reached, read_curve
from supervised_reptile.files import write_whole
from supervised_reptile.places import FOLDER
from supervised_reptile.published import EVALUATION_ONLY, ROWS, Row, full_length, row_of

TIME_WINDOW = 400
"""Points of a learning curve, each of one task, that are averaged to say what it has reached.

The mean of fewer gets there by chance.
"""
_MILESTONES = (90.0, 95.0)
_STATUS = ("full", "shortened", "unfinished", "not run")
_MARKS = "<!-- results -->\n", "<!-- /results -->"


def compare(root: Path) -> list[dict[str, Any]]:
    """Group the records below a folder by training and task, beside what is published.

    Runs that differ in the seed alone are one entry. Every kind of task of every published row
    has at least one entry, if only to say that it was not run.

    Args:
        root: Folder that holds ``**/results*.json``.

    Returns:
        One mapping of plain values an entry, in the order of `published.ROWS`, then what belongs
        to no row: ``row``, ``title``, ``dataset``, ``classes``, ``shots``, ``transductive``,
        ``published`` (list of ``mean``, ``spread``, ``source``; percent), ``status`` ("full",
        "shortened", "unfinished", "not run"); and where it was run ``meta_iters`` (the published
        length), ``iterations``, ``seeds``, ``accuracy`` (split -> ``mean``, ``spread`` over the
        seeds, ``interval95`` over the tasks of a seed, ``tasks``; percent), ``difference`` (test
        mean less the published one, if "full"), ``hours`` (training, mean over the seeds),
        ``records``.
    """
    groups: dict[tuple, list[tuple[str, dict]]] = {}
    for path, record in _records(root):
        name = path.relative_to(root.parent).as_posix()
        groups.setdefault(_group(record), []).append((name, record))
    ran = sorted((_entry(group) for group in groups.values()), key=_by_length)
    entries = []
    for row in ROWS:
        for task in row.tasks():
            head = _head_of_row(row, *task)
            entries += [e for e in ran if head.items() <= e.items()] or [
                head | {"status": "not run"}
            ]
    return entries + [entry for entry in ran if entry not in entries]


def _records(root: Path, pattern: str = "**/results*.json") -> list[tuple[Path, dict[str, Any]]]:
    """The records of runs below a folder; those of experiments hold other things."""
    read = ((path, json.loads(path.read_text())) for path in sorted(root.glob(pattern)))
    return [(path, record) for path, record in read if {"config", "iterations"} <= record.keys()]


def _by_length(entry: Mapping[str, Any]) -> tuple[int, int]:
    return _STATUS.index(entry["status"]), -entry["iterations"]


def _training(record: Mapping[str, Any]) -> Config:
    return Config.from_dict(record.get("trained_with", record["config"]))


def _group(record: Mapping[str, Any]) -> tuple:
    """What the runs of one entry have in common."""
    trained, evaluated = _training(record).flat(), Config.from_dict(record["config"]).flat()
    same = {name: evaluated[name] for name in EVALUATION_ONLY - {"eval_interval", "eval_samples"}}
    same |= {k: v for k, v in trained.items() if k not in EVALUATION_ONLY and k != "seed"}
    return (*sorted(same.items()), record["iterations"])


def _entry(group: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    records = [record for _, record in group]
    trained, evaluated = _training(records[0]), Config.from_dict(records[0]["config"])
    row, task = row_of(trained), (evaluated.task.shots, evaluated.eval.transductive)
    head = _head_of_row(row, *task) if row else _head_of_training(trained, *task)
    full, iterations = full_length(trained), records[0]["iterations"]
    entry = head | {
        "status": "full" if iterations >= full else "shortened",
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
    return what | {"shots": shots, "transductive": transductive, "published": published}


def _head_of_training(trained: Config, shots: int, transductive: bool) -> dict[str, Any]:
    """Where no row is of this training."""
    algorithm = {"reptile": "Reptile"}.get(trained.meta.algorithm, trained.meta.algorithm.upper())
    optimizer = {"adam": ""}.get(trained.inner.inner_optimizer, trained.inner.inner_optimizer)
    what = {
        "row": None,
        "title": algorithm + (f", {optimizer} inside" if optimizer else ""),
        "dataset": trained.task.dataset,
        "classes": trained.task.classes,
    }
    return what | {"shots": shots, "transductive": transductive, "published": []}


def _over_seeds(accuracies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of the runs and, as the paper's ±, their standard deviation (n − 1); percent."""
    means = [100 * a["mean"] for a in accuracies]
    intervals = [100 * a["interval95"] for a in accuracies if a["interval95"] is not None]
    return {
        "mean": statistics.fmean(means),
        "spread": statistics.stdev(means) if len(means) > 1 else None,
        "interval95": statistics.fmean(intervals) if intervals else None,
        "tasks": min(a["tasks"] for a in accuracies),
    }


def comparison_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """The entries of `compare` as a table in Markdown."""
    lines = [
        "| row | task | published | here, test classes | difference | training classes "
        "| meta-iterations | records |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_cells(entry))} |" for entry in entries]
    return "\n".join(lines) + "\n"


def _cells(entry: Mapping[str, Any]) -> list[str]:
    published = [
        f"{p['mean']:.2f}"
        + ("" if p["spread"] is None else f" ± {p['spread']:.2f}")
        # Which table is plain from the row; the review's numbers are marked.
        + (f" ({p['source']})" if p["source"] == "review" else "")
        for p in entry["published"]
    ]
    first = [
        _heading(entry["dataset"], entry["title"]),
        f"{entry['shots']}-shot {entry['classes']}-way"
        + (", transductive" if entry["transductive"] else ""),
        ", ".join(published),
    ]
    if entry["status"] == "not run":
        return [*first, "not run", "", "", "", ""]
    length = f"{entry['iterations']:,}"
    if entry["status"] != "full":
        # Where no row is of the training, no published length is.
        of = f"; of {entry['meta_iters']:,}" if entry["row"] else ""
        length += f" ({entry['status']}{of})"
    links = (
        f"[{seed}]({path})" for seed, path in zip(entry["seeds"], entry["records"], strict=True)
    )
    difference = entry.get("difference")
    return [
        *first,
        _accuracy(entry["accuracy"]["test"]),
        "" if difference is None else f"{difference:+.2f}",
        _accuracy(entry["accuracy"]["train"]),
        length,
        f"seed {', '.join(links)}",
    ]


def _accuracy(accuracy: Mapping[str, Any]) -> str:
    """Mean ± spread over the seeds; of a single run the interval over tasks, in brackets."""
    text = f"{accuracy['mean']:.2f}"
    if accuracy["spread"] is not None:
        return f"{text} ± {accuracy['spread']:.2f}"
    return text if accuracy["interval95"] is None else f"{text} [± {accuracy['interval95']:.2f}]"


def times_to_accuracy(root: Path) -> list[dict[str, Any]]:
    """When the learning curves of finished, published runs reached certain accuracies.

    Args:
        root: Folder that holds ``**/curve.csv`` beside records.

    Returns:
        One mapping a run and target, with ``row``, ``seed``, ``target`` (percent, test classes),
        and ``iteration`` and ``hours``, or None where the curve never got there. The curve is
        smoothed by a trailing mean over `TIME_WINDOW` points.
    """
    found = []
    for path in sorted(root.rglob("curve.csv")):
        records = _records(path.parent, "results*.json")
        if not records:
            continue
        trained = _training(records[0][1])
        row = row_of(trained)
        if row is None or trained.meta.meta_iters < row.meta_iters:
            continue
        shown = row.published(trained.task.shots, trained.eval.transductive)
        curve = read_curve(path)
        for target in sorted({*_MILESTONES, *(c.mean for c in shown[:1])}):
            reached = first_reached(curve, "test", target / 100, TIME_WINDOW)
            when = {"iteration": None, "hours": None}
            if reached is not None:
                when = {"iteration": reached[0], "hours": reached[1] / 3600}
            found.append({"row": row.name, "seed": trained.seed, "target": target} | when)
    return found


def times_table(times: Sequence[Mapping[str, Any]]) -> str:
    """The runs of `times_to_accuracy` as a table in Markdown."""
    lines = ["| row | seed | test accuracy | meta-iterations | hours |", "|---|---|---|---|---|"]
    for time in times:
        when = ["not reached", ""]
        if time["iteration"] is not None:
            when = [f"{time['iteration']:,}", f"{time['hours']:.2f}"]
        cells = [time["row"], str(time["seed"]), f"{time['target']:g} %", *when]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _notes() -> str:
    """What a reader must know of the rows, each remark once."""
    notes: dict[str, dict[str, None]] = {}
    for row in ROWS:
        if row.note:
            notes.setdefault(row.note, {})[_heading(row.dataset, row.title)] = None
    return "".join(f"- {'; '.join(rows)}: {note}\n" for note, rows in notes.items())


def _heading(dataset: str, title: str) -> str:
    """What the tables call a row."""
    return f"{dataset.removeprefix(FOLDER)}, {title}"


def write_comparison(root: Path, readme: Path) -> str:
    """Write ``reproduction.json`` and ``.md`` into a folder of records, and the README's table.

    Args:
        root: Folder of the records, ``results``.
        readme: README with the marks ``<!-- results -->`` … ``<!-- /results -->``.

    Returns:
        The table.

    Raises:
        ValueError: The README has no marks.
    """
    begin, end = _MARKS
    before, found, rest = readme.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{readme} must hold the marks {begin.strip()} and {end}")
    entries, times = compare(root), times_to_accuracy(root)
    table = comparison_table(entries)
    whole = json.dumps({"comparison": entries, "time_to_accuracy": times}, indent=2)
    write_whole(root / "reproduction.json", whole + "\n")
    # Links start at the project in the README, and here at this folder.
    local = table.replace(f"]({root.name}/", "](")
    write_whole(
        root / "reproduction.md",
        "# Published and reproduced\n\n"
        "Accuracy in percent. Published: Reptile's ± is the spread of three runs; MAML's, and\n"
        "FOMAML's as far as it is from Finn et al., the 95 % interval over tasks. Here: mean\n"
        "± standard deviation over the seeds, or of a single run [± the 95 % interval over\n"
        "tasks].\n\n"
        f"{local}\n{_notes()}\n## Time to accuracy\n\n"
        f"When the learning curve (1-shot, transductive), averaged over the last {TIME_WINDOW} "
        "points\nof one task each, first reached an accuracy. Hours are of the wall, as it was.\n\n"
        f"{times_table(times)}",
    )
    write_whole(readme, f"{before}{begin}{table}{end}{after}")
    return table
