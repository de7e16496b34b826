"""Tasks in parallel and workers on this machine, next to the chain and to separate trainings.

    python -m benchmarks.scaling

Processes take turns, as in benchmarks.run. A contestant is one process or two that run at the same
time. Medians and ratios go to results/benchmarks/scaling.json, from which `python docs/tables`
writes the tables of docs/scaling.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from supervised_reptile.config.command_line import Flag, run_program
from supervised_reptile.tools.launch import cluster_environments

ROOT = Path(__file__).resolve().parents[1]
ROW = "omniglot-1shot-5way"
CHAIN, SEPARATE, WORKERS = "the chain", "two trainings, one thread each", "2 workers"
# Tasks in parallel, inter-op threads and processes of each contestant.
CONTESTANTS = {
    CHAIN: (1, 2, 1),
    SEPARATE: (1, 1, 2),
    "2 parallel tasks": (2, 2, 1),
    "3 parallel tasks": (3, 2, 1),
    "5 parallel tasks": (5, 2, 1),
    WORKERS: (2, 1, 2),
}
PHASES = ("train", "evaluate")
UNITS = {"train": 20, "evaluate": 64}  # meta-iterations and tasks of one turn


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    run_program(
        _measure,
        {
            "rounds": Flag(9, "Turns of each contestant."),
            "output": Flag(str(ROOT / "results/benchmarks/scaling.json"), "File to write."),
        },
        argv,
        __doc__,
    )


def _measure(rounds: int, output: str) -> None:
    contestants = {name: _Contestant(*what) for name, what in CONTESTANTS.items()}
    seconds: dict[str, dict[str, list[float]]] = {
        phase: {name: [] for name in CONTESTANTS} for phase in PHASES
    }
    waits: list[float] = []
    try:
        for number in range(rounds):
            for phase in PHASES:
                for name, contestant in contestants.items():
                    took, waited = contestant.turn(phase)
                    seconds[phase][name].append(took)
                    if name == WORKERS and phase == "train":
                        waits.append(waited / took)
            print(f"round {number + 1} of {rounds}", flush=True)
    finally:
        for contestant in contestants.values():
            contestant.close()
    found = _summary(seconds)
    found["train"][WORKERS]["share_of_time_in_sums"] = statistics.median(waits)
    report = {"row": ROW, "rounds": rounds, "cores": os.cpu_count(), "phases": found}
    Path(output).write_text(json.dumps(report, indent=1) + "\n")


def _summary(seconds: Mapping[str, Mapping[str, Sequence[float]]]) -> dict:
    """Units per second of all processes of a contestant together, and their ratio to the chain."""
    found: dict = {}
    for phase, by_name in seconds.items():
        rates = {
            name: [_units(name, phase) / each for each in times] for name, times in by_name.items()
        }
        found[phase] = {}
        for name, own in rates.items():
            ratios = [a / b for a, b in zip(own, rates[CHAIN], strict=True)]
            found[phase][name] = {
                "per_second": statistics.median(own),
                "ratio_to_chain": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
            }
    return found


def _units(name: str, phase: str) -> int:
    """Two separate trainings do the work twice; workers share it."""
    return UNITS[phase] * (2 if name == SEPARATE else 1)


class _Contestant:
    """One or two processes that compute at the same time."""

    def __init__(self, parallel_tasks: int, threads: int, processes: int) -> None:
        shares = parallel_tasks > 1 and processes > 1
        command = [sys.executable, "-m", "benchmarks.scaling_worker"]
        environments: list[dict[str, str]] = [{} for _ in range(processes)]
        if shares:
            environments = cluster_environments(processes)
        self._processes = [
            subprocess.Popen(
                [*command, str(parallel_tasks), str(threads)],
                env=os.environ | environment,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for environment in environments
        ]
        for phase in PHASES:
            self.turn(phase)  # traces and compiles

    def turn(self, phase: str) -> tuple[float, float]:
        """Let the processes work; return the seconds of the slowest, and those in its sums."""
        for process in self._processes:
            print(phase, UNITS[phase], file=process.stdin, flush=True)
        return max(tuple(json.loads(process.stdout.readline())) for process in self._processes)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    main()
