"""Measure the package and plain programs of the same algorithm, and print a table.

    python -m benchmarks.run --json benchmark.json

See README.md in this folder for what is compared and how.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from tqdm import tqdm

from benchmarks.processes import BenchmarkError, Worker, run_job
from benchmarks.report import PHASES, phase_summary, render
from benchmarks.worker import (
    CONTESTANTS,
    JAX,
    MATRIX_PRODUCT,
    OURS,
    PYTORCH,
    TENSORFLOW_1,
    difference,
)
from benchmarks.workloads import WORKLOADS, Workload
from supervised_reptile.config.command_line import Flag, run_program
from supervised_reptile.errors import ConfigError

BASELINES = tuple(name for name in CONTESTANTS if name != OURS)
PARTS = ("speed", "jobs")
PEERS = {PYTORCH: "torch", JAX: "jax"}
"""Peer -> the module that tells whether an interpreter has it."""
# Of `difference`. Programs that differ in rounding alone come to 0.02 at most; other constants of
# Adam, another ε of the normalization or slots reset from task to task to 0.1 at least.
TOLERANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure and how; see the flags of the same names."""

    rows: Sequence[str]
    baselines: Sequence[str] | None
    rounds: int
    seconds: float
    threads: Sequence[int]
    peer_python: str
    tf1_python: str | None
    only: Sequence[str]
    job_iterations: int
    data_dir: str | None


FLAGS = {
    "rows": Flag(",".join(WORKLOADS), "Rows to time, separated by commas."),
    "baselines": Flag(
        None,
        f"What to compare with, of {', '.join(BASELINES)}, or none. When not given: all that can "
        "run here.",
        str,
    ),
    "rounds": Flag(7, "Number of rounds, at least 1; medians are over the rounds."),
    "seconds": Flag(1.0, "Minimum length of a turn, in seconds, at least 0."),
    "threads": Flag(
        None,
        "INTRA/INTER, threads of the package, to find the best numbers for a machine. When not "
        "given: those that suit the row.",
        str,
    ),
    "peer_python": Flag(
        None,
        "Interpreter that has PyTorch and JAX besides this package's requirements. When not "
        "given: this one.",
        str,
    ),
    "tf1_python": Flag(
        None,
        "Interpreter that has TensorFlow 1, of Python 3.6 or 3.7. When not given: without it.",
        str,
    ),
    "only": Flag(
        ",".join(PARTS),
        "speed: the tables of times; jobs: start-up time and peak memory of a whole run of "
        "run_omniglot.py.",
    ),
    "job_iterations": Flag(
        300, "Meta-iterations of the job for the memory measurement, at least 1."
    ),
    "data_dir": Flag(
        None,
        "Directory of the prepared Omniglot, for the whole jobs. When not given: glyphs.",
        str,
    ),
    "json": Flag(None, "File for all measurements, in addition to the output.", str),
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    run_program(_benchmark, FLAGS, argv, __doc__)


def _benchmark(**given: Any) -> None:
    path = given.pop("json")
    if path is not None:
        path = Path(path)
        _require_writable(path)
    report = benchmark(_settings(**given))
    print(render(report))
    if path is not None:
        path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def _settings(
    *,
    rows: str,
    baselines: str | None,
    threads: str | None,
    peer_python: str | None,
    tf1_python: str | None,
    only: str,
    **numbers: Any,
) -> Settings:
    """Check the flags.

    Raises:
        ConfigError: One of them is out of range.
    """
    for name, least in (("rounds", 1), ("seconds", 0), ("job_iterations", 1)):
        if not least <= numbers[name] < math.inf:
            raise ConfigError(f"--{name}: must be at least {least}. Received: {numbers[name]}")
    known = None
    if baselines is not None:
        known = [] if baselines == "none" else _names("baselines", baselines, BASELINES)
    return Settings(
        rows=_names("rows", rows, WORKLOADS),
        baselines=known,
        threads=() if threads is None else _thread_pair(threads),
        peer_python=_interpreter(peer_python or sys.executable),
        tf1_python=tf1_python and _interpreter(tf1_python),
        only=_names("only", only, PARTS),
        **numbers,
    )


def _names(flag: str, text: str, known: Iterable[str]) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            raise ConfigError(f"--{flag}: must be of {', '.join(known)}. Received: {name!r}")
    return names


def _interpreter(text: str) -> str:
    """Return a path that is valid in every folder; a name is searched on the PATH."""
    # Not resolved: an interpreter finds its virtual environment through its link.
    return os.path.abspath(text) if os.sep in text else text  # noqa: PTH100


def _thread_pair(text: str) -> tuple[int, int]:
    intra, slash, inter = text.partition("/")
    if not (slash and intra.isdecimal() and inter.isdecimal() and int(intra) and int(inter)):
        raise ConfigError(
            f"--threads: must be two integers of at least 1, as 1/2. Received: {text!r}"
        )
    return int(intra), int(inter)


def benchmark(settings: Settings) -> dict[str, Any]:
    """Measure what the flags select.

    Args:
        settings: What to measure.

    Returns:
        Environment, settings, rows and jobs as plain values for JSON.

    Raises:
        BenchmarkError: A part could not be run.
    """
    baselines = _available(settings) if "speed" in settings.only else []
    with Worker(MATRIX_PRODUCT) as product:
        report = {
            "environment": product.start["environment"],
            "settings": {
                "rounds": settings.rounds,
                "seconds": settings.seconds,
                "job_iterations": settings.job_iterations,
            },
            "rows": [],
            "jobs": [],
        }
        if "speed" in settings.only:
            for name in settings.rows:
                report["rows"].append(_row(WORKLOADS[name], baselines, product, settings))
    if "jobs" in settings.only:
        report["jobs"] = _jobs(settings)
    return report


def _row(
    workload: Workload, baselines: Sequence[str], product: Worker, settings: Settings
) -> dict[str, Any]:
    names = [OURS, *baselines]
    total = len(names) + settings.rounds * len(PHASES) * (1 + len(names))
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=total, desc=workload.title, unit="turn"))
        workers = {}
        for name in names:
            bar.set_postfix_str(f"{name}: start and warm-up")
            needs = CONTESTANTS[name].needs
            python = settings.peer_python if needs in PEERS else sys.executable
            more = settings.threads if name == OURS else ()
            if needs == TENSORFLOW_1:
                more = (settings.tf1_python,)
            worker = Worker(name, workload.name, *map(str, more), python=python)
            workers[name] = stack.enter_context(worker)
            bar.update()
        seconds = {phase: {name: [] for name in names} for phase in PHASES}
        products = {phase: [] for phase in PHASES}

        def turn(worker: Worker, label: str, phase: str, into: list[float]) -> None:
            bar.set_postfix_str(f"{label}: {phase}")
            into.append(worker.seconds(phase, settings.seconds))
            bar.update()

        # One at a time and in turn, so a slow period of the machine affects all of them.
        for _ in range(settings.rounds):
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


def _jobs(settings: Settings) -> list[dict[str, Any]]:
    """Measure the start-up time of a real job, and the memory of training and evaluation."""
    dataset, more = "glyphs", []
    if settings.data_dir is not None:
        dataset, more = "omniglot", ["--data_dir", str(settings.data_dir)]
    jobs = []
    wanted = ((1, 1), (settings.job_iterations, 100))
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


def _available(settings: Settings) -> list[str]:
    """Return the requested baselines; by default all that can run here."""
    chosen = BASELINES if settings.baselines is None else settings.baselines
    needed = {CONTESTANTS[name].needs for name in chosen} - {None}
    missing = {}  # reason for each missing baseline
    for peer in needed & PEERS.keys():
        if not find(settings.peer_python, PEERS[peer], "--peer_python"):
            missing[peer] = f"{settings.peer_python} has none; give one with --peer_python"
    if TENSORFLOW_1 in needed:
        python = settings.tf1_python
        if python is None:
            missing[TENSORFLOW_1] = "give one with --tf1_python"
        elif not find(python, "tensorflow", "--tf1_python", below="2"):
            missing[TENSORFLOW_1] = f"{python} has none; give one with --tf1_python"
    for what, why in missing.items():
        if settings.baselines is not None:
            raise BenchmarkError(f"--baselines: needs an interpreter with {what}: {why}")
        print(f"benchmarks: without {what} ({why})", file=sys.stderr)
    return [name for name in chosen if CONTESTANTS[name].needs not in missing]


def find(python: str, module: str, flag: str, below: str = "") -> bool:
    """Whether an interpreter can import a module, of a version below another one if given.

    Raises:
        BenchmarkError: The interpreter cannot be run. The message begins with the flag.
    """
    code = f"import {module} as m, sys; sys.exit(bool({below!r}) and m.__version__ >= {below!r})"
    try:
        result = subprocess.run([python, "-c", code], check=False, capture_output=True)
    except OSError as error:
        raise BenchmarkError(f"{flag}: cannot run {python}: {error.strerror}") from error
    return result.returncode == 0


def _require_writable(path: Path) -> None:
    """Check this before minutes of measurements."""
    try:
        path.open("a").close()
    except OSError as error:
        raise BenchmarkError(f"--json: cannot write {path}: {error.strerror}") from error


if __name__ == "__main__":
    main()
