"""Reproduces the published tables from the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.config.command_line import Flag, run_program
from supervised_reptile.config.locations import default_data_dir
from supervised_reptile.errors import ConfigError
from supervised_reptile.programs import CHECKOUT, command
from supervised_reptile.reproduction.jobs import Job, run_side_by_side
from supervised_reptile.reproduction.published import ROWS, Row, find_row, run_name
from supervised_reptile.reproduction.report import check_readme, write_comparison
from supervised_reptile.startup import import_tensorflow

RESULTS = (CHECKOUT or Path()) / "results"
"""Folder of the records: that of the checkout, or "results" in the current folder."""

_READMES = (
    "With the project's records it is the project's README.md, else none."
    if CHECKOUT
    else "When not given: none."
)
_FLAGS = {
    "row": Flag([], "A row to run; may be repeated.", list[str]),
    "verify": Flag(
        [],
        "A network in the package, or a row for all its seeds: evaluate it again and compare with"
        " the record; may be repeated. Nothing is trained or written.",
        list[str],
    ),
    "seeds": Flag((0,), "Seeds to run, separated by commas."),
    "pretrained": Flag(
        False,
        "Evaluate the networks in the package of these rows and seeds instead of training, and"
        " write their records.",
    ),
    "meta_iters": Flag(None, "Outer updates, at least 1, to shorten the run.", int),
    "eval_samples": Flag(10_000, "Tasks of each evaluation, at least 1."),
    "jobs": Flag(None, "Trainings in parallel, at least 1. When not given: one per core.", int),
    "runs": Flag("runs", "Folder of the checkpoints."),
    "results": Flag(
        None,
        "Folder of the records. When not given: "
        + ("results/ of the project." if CHECKOUT else "results/ in the current folder."),
        str,
    ),
    "readme": Flag(None, f"File to write the table into. {_READMES}", str),
    "data_dir": Flag(default_data_dir(), "Directory of the data sets."),
    "progress": Flag(True, "Show progress bars."),
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run ``reproduce.py``.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    run_program(_reproduce, _FLAGS, argv, _description())


def _description() -> str:
    program, width = command("reproduce"), max(len(row.name) for row in ROWS) + 2
    rows = "\n".join(
        f"  {row.name:<{width}}{row.title}, {row.dataset} {row.classes}-way, "
        f"{row.meta_iters:,} meta-iterations"
        for row in ROWS
    )
    return f"""\
Reproduce the published tables: train their rows, and compare our numbers with theirs.

    {program}
        writes the tables again from the records
    {program} --row omniglot-5way --seeds 0,1,2
        trains, evaluates and records three seeds
    {program} --row omniglot-5way --seeds 0,1,2 --pretrained
        evaluates the shipped networks of a row, and records
    {program} --verify omniglot-5way --eval_samples 1000
        evaluates the shipped networks of a row and compares with their records

Each training is evaluated on every kind of task that is published for its row. You can stop
it at any time: the same command continues. Several trainings run in parallel, in processes of one
thread each, which is faster for small networks than one training with many threads.

Prepare the data with {command("fetch")} first.

Rows:
{rows}
"""


def _reproduce(
    *,
    row: Sequence[str],
    verify: Sequence[str],
    seeds: Sequence[int],
    pretrained: bool,
    meta_iters: int | None,
    eval_samples: int,
    jobs: int | None,
    runs: str,
    results: str | None,
    readme: str | None,
    data_dir: str,
    progress: bool,
) -> None:
    """Run the rows, and write their results into the table even if some fail."""
    if eval_samples < 1 or (jobs is not None and jobs < 1):
        raise ConfigError("--eval_samples and --jobs must be at least 1")
    if pretrained and (not row or meta_iters is not None):
        raise ConfigError("--pretrained: needs --row, and no --meta_iters: nothing is trained")
    if verify:
        _verify(verify, tasks=eval_samples, data_dir=data_dir, progress=progress)
        return
    records = RESULTS if results is None else Path(results)
    wanted = dict.fromkeys((name, seed) for name in row for seed in seeds)
    options: dict[str, Any] = {"data_dir": data_dir, "progress": progress}
    if len(wanted) > 1:
        options |= {"intra_op_threads": 1, "inter_op_threads": 1}
    work = []
    for row_name, seed in wanted:
        each = find_row(row_name)
        training = each.training(seed, meta_iters)
        name = run_name(each, training)
        checkpoint = _shipped(each, seed) if pretrained else str(Path(runs) / name)
        run_options = RunOptions(checkpoint=checkpoint, pretrained=pretrained, **options)
        arguments = each, training, run_options, eval_samples, records
        work.append(Job(name, carry_out, arguments, Path(runs) / name / "log.txt"))
    table_file = Path(readme) if readme else None
    if table_file is None and CHECKOUT and records.resolve() == RESULTS.resolve():
        table_file = CHECKOUT / "README.md"
    if table_file:
        check_readme(table_file)  # now, not after hours
    try:
        if len(work) == 1:
            carry_out(*work[0].arguments)
        elif work:
            run_side_by_side(work, jobs or os.cpu_count() or 1)
    finally:  # finished rows count, even if others failed
        table = write_comparison(records, table_file)
    print(table, end="")


def _shipped(row: Row, seed: int) -> str:
    """Return ``--checkpoint`` of the network in the package that belongs to a row and seed."""
    import_tensorflow()
    from supervised_reptile.reproduction.verify import network_of
    from supervised_reptile.runs.opening import PACKAGE

    return f"{PACKAGE}{network_of(row, seed)}"


def _verify(names: Sequence[str], *, tasks: int, data_dir: str, progress: bool) -> None:
    import_tensorflow()
    from supervised_reptile.reproduction.verify import networks_of, verify

    networks = [network for name in names for network in networks_of(name)]
    for network in dict.fromkeys(networks):
        verify(network, tasks=tasks, data_dir=data_dir, progress=progress)


def carry_out(
    row: Row, training: Config, options: RunOptions, eval_samples: int, results: Path
) -> None:
    """Train, evaluate and record a row.

    Args:
        row: The row.
        training: Configuration of its training.
        options: Where and how to run it.
        eval_samples: Number of tasks per evaluation, at least 1.
        results: Folder of the records.
    """
    import_tensorflow()
    from supervised_reptile.reproduction.row import reproduce

    reproduce(row, training, options, eval_samples=eval_samples, results=results)
