"""Reproduce the published tables: train their rows, and set our numbers beside theirs.

    python reproduce.py                                    make the tables anew from the records
    python reproduce.py --row omniglot-5way --seeds 0,1,2  train, evaluate and record three seeds

Each training is evaluated on every kind of task that is published for its row. Stop it whenever
you like: the same command goes on. Several trainings run side by side in processes of one thread
each, which on small networks gets more done than one training with many threads.

Prepare the data with ./fetch_data.sh first.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.errors import ConfigError, UserError
from supervised_reptile.reproduction.comparison import check_readme, write_comparison
from supervised_reptile.reproduction.jobs import Job, run_side_by_side
from supervised_reptile.reproduction.published import ROWS, Row, find_row, run_name
from supervised_reptile.startup import import_tensorflow

PROJECT = Path(__file__).parent
RESULTS = PROJECT / "results"
_PROGRAM = "reproduce.py"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{_PROGRAM}: error: {message} (see --help)\n")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog=_PROGRAM,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="rows:\n" + "\n".join(f"  {row.name:<30}{_description(row)}" for row in ROWS),
    )
    add, defaults = parser.add_argument, RunOptions()
    add("--row", action="append", default=[], metavar="NAME", help="a row to run; may be repeated")
    add("--seeds", type=_numbers, default=[0], metavar="N,N", help="seeds to run (default: 0)")
    add("--meta_iters", type=int, metavar="N", help="outer updates, to shorten the run")
    add("--eval_samples", type=int, default=10_000, metavar="N", help="tasks (default: 10000)")
    add("--jobs", type=int, metavar="N", help="trainings side by side (default: one a core)")
    add(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="checkpoints (default: runs)"
    )
    add("--results", type=Path, default=RESULTS, metavar="DIR", help="records (the project's)")
    add(
        "--readme", type=Path, metavar="FILE", help="for the table (default: with the project's "
        "records the project's README.md, else none)",
    )  # fmt: skip
    add("--data_dir", default=defaults.data_dir, metavar="DIR", help="data (default: %(default)s)")
    add("--noprogress", dest="progress", action="store_false", help="show no progress bars")
    return parser.parse_args(argv)


def _description(row: Row) -> str:
    lengths = f"{row.meta_iters:,} meta-iterations"
    return f"{row.title}, {row.dataset} {row.classes}-way, {lengths}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None to take them from `sys.argv`.

    Returns:
        Exit code.
    """
    args = _parse(argv)
    try:
        jobs = _jobs(args)
        projects = args.results.resolve() == RESULTS.resolve()
        readme = args.readme or (PROJECT / "README.md" if projects else None)
        if readme:
            check_readme(readme)  # now, not after hours
        try:
            if len(jobs) == 1:
                _carry_out(*jobs[0].arguments)
            elif jobs:
                run_side_by_side(jobs, args.jobs or os.cpu_count() or 1)
        finally:  # what was finished counts, whatever became of the rest
            table = write_comparison(args.results, readme)
        print(table, end="")
    except (UserError, OSError) as error:
        message = " ".join(str(error).split())
        print(f"{_PROGRAM}: {getattr(error, 'kind', 'error')}: {message}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        print(f"{_PROGRAM}: stopped: the same command goes on", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _jobs(args: argparse.Namespace) -> list[Job]:
    """One job for each row and seed."""
    if args.eval_samples < 1 or (args.jobs is not None and args.jobs < 1):
        raise ConfigError("--eval_samples and --jobs must be at least 1")
    wanted = dict.fromkeys((name, seed) for name in args.row for seed in args.seeds)
    threads = {"intra_op_threads": 1, "inter_op_threads": 1} if len(wanted) > 1 else {}
    jobs = []
    for row_name, seed in wanted:
        row = find_row(row_name)
        training = row.training(seed, args.meta_iters)
        name = run_name(row, training)
        options = RunOptions(
            checkpoint=str(args.runs / name),
            data_dir=args.data_dir,
            progress=args.progress,
            **threads,
        )
        arguments = row, training, options, args.eval_samples, args.results
        jobs.append(Job(name, _carry_out, arguments, args.runs / name / "log.txt"))
    return jobs


def _carry_out(
    row: Row, training: Config, options: RunOptions, eval_samples: int, results: Path
) -> None:
    import_tensorflow()
    from supervised_reptile.reproduction.row import reproduce

    reproduce(row, training, options, eval_samples=eval_samples, results=results)


if __name__ == "__main__":
    sys.exit(main())
