"""Start a training on several local processes that share its tasks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, NoReturn

from supervised_reptile.config.command_line import Flag, run_program
from supervised_reptile.errors import ConfigError
from supervised_reptile.programs import command

_PROGRAMS = ("omniglot", "miniimagenet")
_SECONDS_TO_END = 30


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    name, *words = sys.argv if argv is None else argv
    first = next((i for i, word in enumerate(words) if _is_program(word)), len(words))
    program = words[first:]

    def launch(workers: int) -> None:
        if workers < 2:
            raise ConfigError(f"--workers: must be at least 2. Received: {workers}")
        if not program:
            raise ConfigError(
                f"the program must be one of {', '.join(_PROGRAMS)} or a script of them. "
                "Received: none"
            )
        sys.exit(_run(program, workers))

    here = command("launch")
    run_program(
        launch,
        {"workers": Flag(2, "Number of processes, at least 2.")},
        [name, *words[:first]],
        f"""\
Start a training or evaluation on several processes of this machine that share its tasks.

    {here} --workers 2 omniglot --shots 1 --transductive --parallel_tasks 2

The flags after the program are its own. Each process has its share of the cores. For several
machines, see docs/scaling.md.
""",
    )


def _is_program(word: str) -> bool:
    return word in _PROGRAMS or word.endswith(".py")


def _run(program: Sequence[str], count: int) -> int:
    """Run the workers; returns the exit code of the chief, which alone prints."""
    kind = [program[0]] if program[0].endswith(".py") else ["-m", "supervised_reptile", program[0]]
    command = [sys.executable, *kind, *program[1:]]
    workers: list[subprocess.Popen] = []
    environments, cores = cluster_environments(count), _shares_of_the_cores(count)
    with contextlib.ExitStack() as files:
        outputs: list[IO[str] | None] = [None]
        outputs += [files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(count - 1)]
        try:
            for number, output in enumerate(outputs):
                worker = subprocess.Popen(
                    command,
                    env=os.environ | environments[number],
                    stdout=output,
                    stderr=output,
                    start_new_session=number > 0,  # Ctrl-C reaches the chief alone
                )
                workers.append(worker)
                if cores:
                    os.sched_setaffinity(worker.pid, cores[number])
            signal.signal(signal.SIGTERM, lambda *_: workers[0].terminate())
            code = _wait(workers, outputs)
        finally:
            for worker in workers:
                worker.kill()
    return code if code >= 0 else 128 - code


def _wait(workers: Sequence[subprocess.Popen], outputs: Sequence[IO[str] | None]) -> int:
    """Wait for the chief; show the output of workers that ended before it with an error."""
    chief, others = workers[0], list(zip(workers, outputs, strict=True))[1:]
    failed: set[int] = set()
    left = None
    while True:
        with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
            chief.wait(timeout=0.5)
        if chief.returncode is not None:
            return chief.returncode
        for worker, output in others:
            if worker.poll() and worker.pid not in failed and output is not None:
                failed.add(worker.pid)
                output.seek(0)
                sys.stderr.write(output.read())
                sys.stderr.flush()
                left = _SECONDS_TO_END * 2
        if left is not None:
            left -= 1
            if left == 0:
                chief.terminate()


def cluster_environments(count: int) -> list[dict[str, str]]:
    """Return ``TF_CONFIG`` for each of some workers on free ports of this machine."""
    with contextlib.ExitStack() as sockets:
        opened = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in opened:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in opened]
    tasks = [{"type": "worker", "index": number} for number in range(count)]
    cluster = {"worker": addresses}
    return [{"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})} for task in tasks]


def _shares_of_the_cores(count: int) -> list[list[int]]:
    """Divide the cores of this process among workers; empty if there are too few."""
    if not hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return []
    cores = sorted(os.sched_getaffinity(0))
    return [cores[n::count] for n in range(count)] if len(cores) >= count else []
