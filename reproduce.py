"""Reproduce the published tables: train their rows, and set our numbers beside theirs.

    python reproduce.py                                    list the rows and what was run of them
    python reproduce.py --row omniglot-5way --seeds 0,1,2  train, evaluate and record three seeds

Each training is evaluated on every kind of task that is published for its row. Stop it whenever
you like: the same command goes on. Several trainings run side by side in processes of one thread
each, which on small networks gets more done than one training with many threads.

Prepare the data with ./fetch_data.sh first.
"""

import argparse
import contextlib
import dataclasses
import multiprocessing.connection
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.errors import ConfigError, RunError, RunInterrupted, UserError
from supervised_reptile.published import ROWS, Row, find_row, run_name
from supervised_reptile.quiet import import_tensorflow

PROJECT = Path(__file__).parent
_PROGRAM = "reproduce.py"
_SPAWN = multiprocessing.get_context("spawn")


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
        epilog="rows:\n" + "\n".join(f"  {row.name:<26}{_description(row)}" for row in ROWS),
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
    add("--results", type=Path, default=PROJECT / "results", metavar="DIR", help="records")
    add("--readme", type=Path, default=PROJECT / "README.md", metavar="FILE", help="for the table")
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
        if len(jobs) == 1:
            _carry_out(jobs[0])
        elif jobs:
            _carry_out_side_by_side(jobs, args.jobs or os.cpu_count() or 1)
        import_tensorflow()
        from supervised_reptile.comparison import write_comparison

        print(write_comparison(args.results, args.readme), end="")
    except UserError as error:
        _tell(error)
        return error.exit_code
    return 0


@dataclasses.dataclass(frozen=True)
class _Job:
    """A training with its evaluations: one call of `reproduction.reproduce`."""

    row: Row
    training: Config
    options: RunOptions
    eval_samples: int
    results: Path

    @property
    def name(self) -> str:
        return run_name(self.row, self.training)


def _jobs(args: argparse.Namespace) -> list[_Job]:
    if args.eval_samples < 1 or (args.jobs is not None and args.jobs < 1):
        raise ConfigError("--eval_samples and --jobs must be at least 1")
    jobs = []
    wanted = dict.fromkeys((name, seed) for name in args.row for seed in args.seeds)
    for name, seed in wanted:
        row = find_row(name)
        training = row.training(seed, args.meta_iters)
        directory = str(args.runs / run_name(row, training))
        options = RunOptions(checkpoint=directory, data_dir=args.data_dir, progress=args.progress)
        jobs.append(_Job(row, training, options, args.eval_samples, args.results))
    return jobs


def _carry_out(job: _Job) -> None:
    import_tensorflow()
    from supervised_reptile.reproduction import reproduce

    reproduce(
        job.row, job.training, job.options, eval_samples=job.eval_samples, results=job.results
    )


def _carry_out_side_by_side(jobs: Sequence[_Job], side_by_side: int) -> None:
    """Run every job in a process of its own, so many at a time.

    Raises:
        RunError: A job failed; the others were carried out.
        RunInterrupted: A signal stopped them; what was done is saved.
    """
    waiting, running, failed = list(jobs), {}, []
    received = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        for process in running:
            os.kill(process.pid, number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while (waiting and not received) or running:
            while waiting and len(running) < side_by_side and not received:
                job = waiting.pop(0)
                taken = {line for _, line in running.values()}
                line = next(n for n in range(side_by_side) if n not in taken)
                process = _SPAWN.Process(target=_worker, args=(job, line), name=job.name)
                process.start()
                running[process] = job, line
            multiprocessing.connection.wait([p.sentinel for p in running], timeout=1)
            for process in [p for p in running if p.exitcode is not None]:
                job, _ = running.pop(process)
                if process.exitcode:
                    failed.append(job.name)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        raise RunInterrupted("what was done is saved; the same command goes on", received[0])
    if failed:
        raise RunError(f"{', '.join(failed)} failed; see log.txt in its folder of --runs")


def _worker(job: _Job, line: int) -> None:
    """Carry out a job in a new process; its text goes to a log, its bar to a line of its own."""
    os.setsid()  # Ctrl-C is for the parent, which passes it on: a second signal would not save
    os.environ["TQDM_POSITION"] = str(line)
    directory = Path(job.options.checkpoint)
    directory.mkdir(parents=True, exist_ok=True)
    options = dataclasses.replace(job.options, intra_op_threads=1, inter_op_threads=1)
    with (directory / "log.txt").open("a", buffering=1) as log, contextlib.redirect_stdout(log):
        try:
            _carry_out(dataclasses.replace(job, options=options))
        except UserError as error:
            log.write(f"{error.kind}: {error}\n")
            _tell(error, job.name)
            sys.exit(error.exit_code)


def _tell(error: UserError, job: str = "") -> None:
    message = " ".join(str(error).split())
    sys.stderr.write(f"{_PROGRAM}: {error.kind}: {job and f'{job}: '}{message}\n")


if __name__ == "__main__":
    sys.exit(main())
