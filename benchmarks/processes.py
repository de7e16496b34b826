"""Child processes: the workers that answer commands, and whole jobs watched from outside.

The process that imports this must stay small: on Linux the peak memory reported of a child is
never below that of its parent when it was started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from supervised_reptile.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
_POLL_SECONDS = 0.02


class BenchmarkError(UserError):
    """An error in one line."""


class Worker:
    """A process of ``benchmarks.worker``; use it in a ``with`` statement.

    Args:
        *arguments: Contestant and, but for the matrix product, workload.
        python: Interpreter to run it with.

    Attributes:
        start: What the worker reported at its start.
        peak_megabytes: Most memory it had in use so far.
    """

    def __init__(self, *arguments: str, python: str = sys.executable) -> None:
        self._name = " ".join(arguments)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env=_environment(),
            text=True,
        )
        self.peak_megabytes = 0.0
        try:
            self.start = self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def seconds(self, phase: str, seconds: float) -> float:
        """Let the worker measure for about ``seconds``; return the seconds of one unit."""
        try:
            print(json.dumps({"phase": phase, "seconds": seconds}), file=self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # _answer reports why.
        return self._answer()["seconds"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            reason = last_line(self._errors) or f"exit code {code}"
            raise BenchmarkError(f"worker {self._name} failed: {reason}")
        answer = json.loads(line)
        self.peak_megabytes = answer.get("peak_megabytes", 0.0)
        return answer


def run_job(arguments: Sequence[str], first_point: Path) -> dict[str, float]:
    """Run one of the entry scripts.

    Args:
        arguments: Script and flags.
        first_point: The learning curve it writes. Its first point comes right after the first
            meta-iteration.

    Returns:
        ``first_iteration_seconds`` and ``total_seconds`` since the process was started, and
        ``peak_megabytes``.

    Raises:
        BenchmarkError: The job failed.
    """
    first = []

    def watch(seconds: float) -> None:
        if not first and _has_a_point(first_point):
            first.append(seconds)

    measured = run_to_end(arguments, watch)
    if not first:
        raise BenchmarkError(f"{' '.join(arguments)} failed: no learning curve")
    return {"first_iteration_seconds": first[0], **measured}


def run_to_end(
    arguments: Sequence[str], watch: Callable[[float], None] = lambda seconds: None
) -> dict[str, float]:
    """Run this interpreter.

    Args:
        arguments: Its arguments.
        watch: Called again and again with the seconds since the start, also after the end.

    Returns:
        ``total_seconds`` and ``peak_megabytes``.

    Raises:
        BenchmarkError: The process failed.
    """
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            while True:
                # Not `process.poll()`, which does not report the resource usage.
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                watch(time.perf_counter() - started)
                if ended:
                    break
                time.sleep(_POLL_SECONDS)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            reason = last_line(errors) or f"exit code {process.returncode}"
            raise BenchmarkError(f"{' '.join(arguments)} failed: {reason}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return {
        "total_seconds": time.perf_counter() - started,
        "peak_megabytes": kilobytes / 1024,
    }


def _has_a_point(curve: Path) -> bool:
    try:
        return curve.read_text().count("\n") > 1  # one line of headings, one line per point
    except FileNotFoundError:
        return False


def _environment() -> dict[str, str]:
    # So an interpreter without the package (the one with PyTorch) also finds it.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {"TF_CPP_MIN_LOG_LEVEL": "2"} | os.environ | {"PYTHONPATH": path}


def last_line(file: Any) -> str:
    """Return the last line of text in a binary file; empty if there is none."""
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
