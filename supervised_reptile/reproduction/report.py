"""The tables of the comparison, in Markdown: the README's, and results/reproduction.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from supervised_reptile.config.paper import dataset_title
from supervised_reptile.errors import RunError
from supervised_reptile.reproduction.comparison import (
    TIME_WINDOW,
    compare,
    times_to_accuracy,
)
from supervised_reptile.reproduction.published import ROWS
from supervised_reptile.runs.files import write_whole

_MARKS = "<!-- results -->\n", "<!-- /results -->"


def headline_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of the published cells that were run at full length, for the README.

    Args:
        entries: The result of ``compare``.
    """
    lines = ["| | task | published | here | seeds |", "|---|---|---|---|---|"]
    for entry in entries:
        if entry["status"] != "full" or not entry["published"]:
            continue
        links = zip(entry["seeds"], entry["records"], strict=True)
        cells = [
            _heading(entry["dataset"], entry["title"]),
            _task(entry),
            _published(entry),
            _accuracy(entry["accuracy"]["test"]),
            ", ".join(f"[{seed}]({path})" for seed, path in links),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def comparison_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the entries of ``compare`` as a Markdown table."""
    lines = [
        "| row | task | published | independent runs | here, test classes | difference "
        "| training classes | meta-iterations | records |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_cells(entry))} |" for entry in entries]
    return "\n".join(lines) + "\n"


def _cells(entry: Mapping[str, Any]) -> list[str]:
    first = [
        _heading(entry["dataset"], entry["title"]),
        _task(entry),
        _published(entry),
        ", ".join(f"{accuracy:.2f}" for accuracy in entry["independent"]),
    ]
    if entry["status"] == "not run":
        return [*first, "not run", "", "", "", ""]
    length = f"{entry['iterations']:,}"
    if entry["status"] != "full":
        # A training without a row has no published length.
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


def _task(entry: Mapping[str, Any]) -> str:
    setting = ", transductive" if entry["transductive"] else ""
    return f"{entry['shots']}-shot {entry['classes']}-way{setting}"


def _published(entry: Mapping[str, Any]) -> str:
    """Return the published accuracies of a kind of task; only the review is named as a source."""
    return ", ".join(
        f"{p['mean']:.2f}"
        + ("" if p["spread"] is None else f" ± {p['spread']:.2f}")
        + (f" ({p['source']})" if p["source"] == "review" else "")
        for p in entry["published"]
    )


def _accuracy(accuracy: Mapping[str, Any]) -> str:
    """Return mean ± spread over the seeds, or for a single run the interval in brackets."""
    text = f"{accuracy['mean']:.2f}"
    if accuracy["spread"] is not None:
        return f"{text} ± {accuracy['spread']:.2f}"
    return text if accuracy["interval95"] is None else f"{text} [± {accuracy['interval95']:.2f}]"


def times_table(times: Sequence[Mapping[str, Any]]) -> str:
    """Return the result of ``times_to_accuracy`` as a Markdown table."""
    heads = "row", "seed", "task", "test accuracy", "meta-iterations", "hours"
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for time in times:
        when = ["not reached", ""]
        if time["iteration"] is not None:
            bound = "≤ " if time["at_the_latest"] else ""
            when = [f"{bound}{time['iteration']:,}", f"{bound}{time['hours']:.2f}"]
        task = f"{time['shots']}-shot" + (", transductive" if time["transductive"] else "")
        cells = [time["row"], str(time["seed"]), task, f"{time['target']:g} %", *when]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _notes() -> str:
    """Return the notes on the rows, each remark once."""
    notes: dict[str, dict[str, None]] = {}
    for row in ROWS:
        if row.note:
            notes.setdefault(row.note, {})[_heading(row.dataset, row.title)] = None
    return "".join(f"- {'; '.join(rows)}: {note}\n" for note, rows in notes.items())


def _heading(dataset: str, title: str) -> str:
    """Return the name of a row in the tables."""
    return f"{dataset_title(dataset)}, {title}"


def write_comparison(root: Path, readme: Path | None = None) -> str:
    """Write ``reproduction.json`` and ``.md`` into a folder of records, and the headline table.

    Args:
        root: Folder of the records, ``results``.
        readme: README with the marks ``<!-- results -->`` … ``<!-- /results -->``, if any.

    Returns:
        The whole table.

    Raises:
        RunError: See ``check_readme``; nothing is written then.
    """
    around = check_readme(readme) if readme else None
    root.mkdir(parents=True, exist_ok=True)
    entries, times = compare(root), times_to_accuracy(root)
    table = comparison_table(entries)
    whole = json.dumps({"comparison": entries, "time_to_accuracy": times}, indent=2)
    write_whole(root / "reproduction.json", whole + "\n")
    # Links are relative to the project in the README, and to this folder here.
    local = table.replace(f"]({root.name}/", "](")
    write_whole(
        root / "reproduction.md",
        "# Published and reproduced\n\n"
        "Accuracy in percent. Published: Reptile's ± is the spread of three runs; MAML's, and\n"
        "FOMAML's as far as it is from Finn et al., the 95 % interval over tasks. Here: mean\n"
        "± standard deviation over the seeds, or of a single run [± the 95 % interval over\n"
        "tasks]. Independent runs: the authors' program, run by others (repository\n"
        "glogowski-wojciech/progressive-reptile-experiments, reproduce/README.md).\n\n"
        f"{local}\n{_notes()}\n## Time to accuracy\n\n"
        f"When the mean of the last {TIME_WINDOW} points of the learning curve, each of one task, "
        "first reached an\naccuracy. It looks back, over 20,000 meta-iterations where every 50th "
        "is a point, so a run was\nthere earlier than it says; ≤ marks the first point that has a "
        "mean. Hours are of the wall, on a\nmachine that had other work.\n\n"
        f"{times_table(times)}",
    )
    if readme and around:
        write_whole(readme, f"{around[0]}{headline_table(entries)}{around[1]}")
    return table


def check_readme(readme: Path) -> tuple[str, str]:
    """Return the text before and after the table in a README, including the marks.

    Raises:
        RunError: The README cannot be read, or has no such marks.
    """
    begin, end = _MARKS
    try:
        before, found, rest = readme.read_text().partition(begin)
    except OSError as error:
        raise RunError(f"--readme: cannot read {readme}: {error}") from error
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise RunError(f"--readme: {readme} must hold the marks {begin.strip()} and {end}")
    return before + begin, end + after
