"""Run jobs in several processes, each with a log; a signal stops them without loss."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing.connection
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from supervised_reptile.errors import RunError, RunInterrupted, UserError
from supervised_reptile.interrupts import raise_in_python

# New processes, as TensorFlow's threads do not survive a fork.
_SPAWN = multiprocessing.get_context("spawn")


@dataclasses.dataclass(frozen=True)
class Job:
    """A function to call in its own process.

    Args:
        name: Name of the job.
        function: A function of a module. It may print, and may show one progress bar.
        arguments: Its arguments, which must be picklable.
        log: File to append its output to.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple
    log: Path


def run_side_by_side(
    jobs: Sequence[Job], processes: int, when_done: Callable[[Job], Any] = lambda job: None
) -> None:
    """Call every job's function in its own process, several at a time.

    SIGINT and SIGTERM are passed on to the processes, which save and end. No other is started.

    Args:
        jobs: The jobs.
        processes: Number of processes at a time, at least 1.
        when_done: Called with each job that succeeded.

    Raises:
        RunError: A job failed. All others were run.
        RunInterrupted: A signal stopped them.
    """
    waiting, failed = list(jobs), []
    running: dict[SpawnProcess, tuple[Job, int]] = {}
    received: list[int] = []
    # Signal each process once: a second signal would not let it save.
    signaled: set[SpawnProcess] = set()

    def note(number: int, frame: object) -> None:
        received.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while running or (waiting and not received):
            while waiting and len(running) < processes and not received:
                job = waiting.pop(0)
                taken = {line for _, line in running.values()}
                line = next(n for n in range(processes) if n not in taken)
                process = _SPAWN.Process(target=_work, args=(job, line), name=job.name)
                process.start()
                running[process] = job, line
            for process in running.keys() - signaled if received else ():
                signaled.add(process)
                assert process.pid is not None  # it was started
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, received[0])
            multiprocessing.connection.wait([p.sentinel for p in running], timeout=1)
            for process in [p for p in running if p.exitcode is not None]:
                job, _ = running.pop(process)
                if process.exitcode:
                    failed.append((job, process.exitcode))
                else:
                    when_done(job)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        raise RunInterrupted("finished work is saved; the same command continues", received[0])
    if failed:
        problems = (f"{job.name} ({_reason(job, code)})" for job, code in failed)
        raise RunError(f"failed, see {failed[0][0].log}: {'; '.join(problems)}")


def _work(job: Job, line: int) -> None:
    """Run a job in its process; its output goes to its log and its bar to a separate line."""
    raise_in_python()  # importing the script again lets Ctrl-C end the process
    os.setsid()  # Ctrl-C is for the parent, which passes it on: a second signal would not save
    os.environ["TQDM_POSITION"] = str(line)
    os.environ["SUPERVISED_REPTILE_JOB"] = job.name
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", buffering=1) as log, contextlib.redirect_stdout(log):
        try:
            job.function(*job.arguments)
        except UserError as error:
            log.write(f"{error.kind}: {' '.join(str(error).split())}\n")
            sys.exit(error.exit_code)
        except Exception as error:
            traceback.print_exc(file=log)
            log.write(f"{error!r}\n")
            sys.exit(1)


def _reason(job: Job, exit_code: int) -> str:
    if exit_code < 0:
        return f"ended by signal {-exit_code}"
    lines = job.log.read_text().splitlines() if job.log.exists() else []
    return lines[-1] if lines else "nothing was printed"
