"""Measure the package beside plain programs of the same algorithm, and print a table.

    python -m benchmarks.run --json benchmark.json

See README.md in this folder for what is compared and how.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from tqdm import tqdm

if not __package__:  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import BenchmarkError, Worker, run_job
from benchmarks.report import PHASES, phase_summary, render
from benchmarks.worker import (
    CONTESTANTS,
    MATRIX_PRODUCT,
    OURS,
    PYTORCH,
    TENSORFLOW_1,
    difference,
)
from benchmarks.workloads import WORKLOADS, Workload

BASELINES = tuple(name for name in CONTESTANTS if name != OURS)
PARTS = ("speed", "jobs")
# Of `difference`. Programs that differ in rounding alone come to 0.02 at most; other constants of
# Adam, another ε of the normalization or slots reset from task to task to 0.1 at least.
TOLERANCE = 0.05


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"benchmarks: {message} (see --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None to take them from `sys.argv`.

    Returns:
        Exit code: 0, or 1 after one line on stderr. Wrong usage exits with 2.
    """
    arguments = _parser().parse_args(argv)
    try:
        if arguments.json is not None:
            _require_writable(arguments.json)
        report = benchmark(arguments)
        print(render(report))
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    except (BenchmarkError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbenchmarks: interrupted", file=sys.stderr)
        return 130
    return 0


def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure what the flags ask for.

    Args:
        arguments: The flags.

    Returns:
        Environment, settings, rows and jobs as plain values for JSON.

    Raises:
        BenchmarkError: Something could not be run.
    """
    baselines = _available(arguments) if "speed" in arguments.only else []
    with Worker(MATRIX_PRODUCT) as product:
        report = {
            "environment": product.start["environment"],
            "settings": {
                "rounds": arguments.rounds,
                "seconds": arguments.seconds,
                "job_iterations": arguments.job_iterations,
            },
            "rows": [],
            "jobs": [],
        }
        if "speed" in arguments.only:
            for name in arguments.rows:
                report["rows"].append(_row(WORKLOADS[name], baselines, product, arguments))
    if "jobs" in arguments.only:
        report["jobs"] = _jobs(arguments)
    return report


def _row(
    workload: Workload, baselines: Sequence[str], product: Worker, arguments: argparse.Namespace
) -> dict[str, Any]:
    names = [OURS, *baselines]
    total = len(names) + arguments.rounds * len(PHASES) * (1 + len(names))
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=total, desc=workload.title, unit="turn"))
        workers = {}
        for name in names:
            bar.set_postfix_str(f"{name}: start and warm-up")
            needs = CONTESTANTS[name].needs
            python = arguments.torch_python if needs == PYTORCH else sys.executable
            more = arguments.threads if name == OURS else ()
            if needs == TENSORFLOW_1:
                more = (arguments.tf1_python,)
            worker = Worker(name, workload.name, *map(str, more), python=python)
            workers[name] = stack.enter_context(worker)
            bar.update()
        seconds = {phase: {name: [] for name in names} for phase in PHASES}
        products = {phase: [] for phase in PHASES}

        def turn(worker: Worker, label: str, phase: str, into: list[float]) -> None:
            bar.set_postfix_str(f"{label}: {phase}")
            into.append(worker.seconds(phase, arguments.seconds))
            bar.update()

        # One computes at a time. In turn, so that a machine that is slower for a while is so for
        # all of them.
        for _ in range(arguments.rounds):
            for phase in PHASES:
                turn(product, MATRIX_PRODUCT, phase, products[phase])
                for name, worker in workers.items():
                    turn(worker, name, phase, seconds[phase][name])
        bar.set_postfix_str("done")
    ours = workers[OURS].start["fingerprint"]
    return {
        "name": workload.name,
        "title": workload.title,
        "config": workload.config.to_dict(),
        "eval_tasks_per_call": workload.eval_tasks,
        "workers": {
            name: {
                **{k: worker.start[k] for k in ("threads", "runs_on") if k in worker.start},
                "peak_megabytes": worker.peak_megabytes,
                **_agreement(ours, worker.start["fingerprint"]),
            }
            for name, worker in workers.items()
        },
        **{
            phase: phase_summary(seconds[phase], workload.flop[phase], products[phase])
            for phase in PHASES
        },
    }


def _agreement(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    apart = {part: difference(np.asarray(ours[part]), np.asarray(theirs[part])) for part in ours}
    return {"difference": apart, "agrees": max(apart.values()) < TOLERANCE}


def _jobs(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Start-up of the real job, and the memory of one that has trained and evaluated."""
    dataset, more = "glyphs", []
    if arguments.data_dir is not None:
        dataset, more = "omniglot", ["--data_dir", str(arguments.data_dir)]
    jobs = []
    wanted = ((1, 1), (arguments.job_iterations, 100))
    for iterations, samples in tqdm(wanted, desc="Whole jobs", unit="job"):
        with tempfile.TemporaryDirectory() as directory:
            checkpoint = Path(directory) / "checkpoint"
            flags = ["--dataset", dataset, *more, "--shots", "1", "--transductive"]
            flags += ["--meta_iters", str(iterations), "--eval_samples", str(samples)]
            measured = run_job(
                ["run_omniglot.py", *flags, "--checkpoint", str(checkpoint), "--noprogress"],
                checkpoint / "curve.csv",
            )
        title = f"run_omniglot.py {' '.join(flags)}"
        jobs.append({"title": title, "meta_iters": iterations, **measured})
    return jobs


def _available(arguments: argparse.Namespace) -> list[str]:
    """The baselines asked for; by default all that can run here."""
    chosen = BASELINES if arguments.baselines is None else arguments.baselines
    needed = {CONTESTANTS[name].needs for name in chosen} - {None}
    missing = {}  # what -> why
    if PYTORCH in needed and not find(arguments.torch_python, "torch", "--torch_python"):
        missing[PYTORCH] = f"{arguments.torch_python} has none; give one with --torch_python"
    if TENSORFLOW_1 in needed:
        python = arguments.tf1_python
        if python is None:
            missing[TENSORFLOW_1] = "give one with --tf1_python"
        elif not find(python, "tensorflow", "--tf1_python", below="2"):
            missing[TENSORFLOW_1] = f"{python} has none; give one with --tf1_python"
    for what, why in missing.items():
        if arguments.baselines is not None:
            raise BenchmarkError(f"--baselines: needs an interpreter with {what}: {why}")
        print(f"benchmarks: without {what} ({why})", file=sys.stderr)
    return [name for name in chosen if CONTESTANTS[name].needs not in missing]


def find(python: str, module: str, flag: str, below: str = "") -> bool:
    """Whether an interpreter can import a module, of a version below another one if given.

    Raises:
        BenchmarkError: It cannot be run; the message begins with the flag.
    """
    code = f"import {module} as m, sys; sys.exit(bool({below!r}) and m.__version__ >= {below!r})"
    try:
        result = subprocess.run([python, "-c", code], check=False, capture_output=True)
    except OSError as error:
        raise BenchmarkError(f"{flag}: cannot run {python}: {error.strerror}") from error
    return result.returncode == 0


def _require_writable(path: Path) -> None:
    """Find out before minutes of measuring."""
    try:
        path.open("a").close()
    except OSError as error:
        raise BenchmarkError(f"--json: cannot write {path}: {error.strerror}") from error


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m benchmarks.run",
        description="Times training and evaluation of the package and of plain programs of the "
        "same algorithm, in turn, and prints a table of medians.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--rows",
        type=_names(WORKLOADS),
        default=[*WORKLOADS],
        metavar="NAME,...",
        help=f"what to time, of {', '.join(WORKLOADS)} (default: all)",
    )
    add(
        "--baselines",
        type=_names(BASELINES, none=True),
        metavar="NAME,...",
        help=f"what to compare with, of {', '.join(BASELINES)}, or none (default: all that can "
        "run here)",
    )
    add(
        "--rounds",
        type=_at_least(int, 1),
        default=7,
        help="times that each has its turn; medians are over the rounds (default: %(default)s)",
    )
    add(
        "--seconds",
        type=_at_least(float, 0),
        default=1.0,
        help="least length of a turn, in seconds (default: %(default)s)",
    )
    add(
        "--threads",
        type=_thread_pair,
        default=(),
        metavar="INTRA/INTER",
        help="threads for the package's own rows, to find out what is best for a machine "
        "(default: what suits the row)",
    )
    add(
        "--torch_python",
        "--torch-python",
        type=_interpreter,
        default=sys.executable,
        metavar="PATH",
        help="interpreter that has PyTorch and NumPy (default: this one)",
    )
    add(
        "--tf1_python",
        "--tf1-python",
        type=_interpreter,
        metavar="PATH",
        help="interpreter that has TensorFlow 1, of Python 3.6 or 3.7 (default: without it)",
    )
    add(
        "--only",
        type=_names(PARTS),
        default=[*PARTS],
        metavar="PART",
        help="speed: the tables of times; jobs: start-up time and peak memory of "
        "run_omniglot.py as a whole (default: both)",
    )
    add(
        "--job_iterations",
        "--job-iterations",
        type=_at_least(int, 1),
        default=300,
        metavar="N",
        help="meta-iterations of the job whose memory is measured (default: %(default)s)",
    )
    add(
        "--data_dir",
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="where Omniglot is prepared, for the whole jobs (default: use the glyphs)",
    )
    add("--json", type=Path, metavar="FILE", help="write everything measured here as well")
    return parser


def _names(known: Sequence[str], *, none: bool = False) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        if none and text == "none":
            return []
        names = list(dict.fromkeys(name.strip() for name in text.split(",")))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"must be of {', '.join(known)}. Received: {name!r}"
                )
        return names

    return parse


def _interpreter(text: str) -> str:
    """A path that holds wherever a worker runs; a name is looked for on the PATH."""
    # Not resolved: through its link an interpreter finds its virtual environment.
    return os.path.abspath(text) if os.sep in text else text  # noqa: PTH100


def _thread_pair(text: str) -> tuple[int, int]:
    intra, slash, inter = text.partition("/")
    if not (slash and intra.isdecimal() and inter.isdecimal() and int(intra) and int(inter)):
        raise argparse.ArgumentTypeError(
            f"must be two integers of at least 1, as 1/2. Received: {text!r}"
        )
    return int(intra), int(inter)


def _at_least(kind: type, low: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value < math.inf:
            word = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {word}, at least {low}. Received: {text!r}")
        return value

    return parse


if __name__ == "__main__":
    sys.exit(main())
