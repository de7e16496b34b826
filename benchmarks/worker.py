"""One contestant in a process: ``python -m benchmarks.worker CONTESTANT WORKLOAD [MORE ...]``.

More is, for the package, intra-op and inter-op threads; for TensorFlow 1, its interpreter.

Reads commands from stdin and answers on stdout, a line of JSON each; computes only in between.
What libraries print goes to stderr.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks.plain_loop import Program
from benchmarks.workloads import BLOCKS, WORKLOADS, Workload
from supervised_reptile.datasets.few_shot import FewShotDataset

MATRIX_PRODUCT = "matrix-product"
MATRIX_SIZE = 2048
OURS = "ours"
PYTORCH, JAX, TENSORFLOW_1 = "PyTorch", "JAX", "TensorFlow 1"


class Entry(NamedTuple):
    """Where a contestant is, its threads, and what it needs that is not installed with the package.

    Threads are intra-op and inter-op; ``None`` leaves them as they come, and so does 0 one of them.
    """

    module: str
    name: str
    threads: tuple[int, int] | None = None
    needs: str | None = None


CONTESTANTS = {
    OURS: Entry("contestants", "Ours"),  # with the threads of the workload
    "keras-step": Entry("contestants", "KerasStep"),
    "keras-step-1thread": Entry("contestants", "KerasStep", (1, 0)),
    "eager": Entry("contestants", "KerasEager"),
    "tf1-style": Entry("contestants", "TF1Style"),
    "tf1-style-1thread": Entry("contestants", "TF1Style", (1, 0)),
    "tf1": Entry("contestants", "TensorFlow1", needs=TENSORFLOW_1),
    "tf1-1thread": Entry("contestants", "TensorFlow1", (1, 0), TENSORFLOW_1),
    "pytorch": Entry("pytorch", "PyTorch", needs=PYTORCH),
    "pytorch-1thread": Entry("pytorch", "PyTorch", (1, 0), PYTORCH),
    "torch-compile": Entry("pytorch", "CompiledPyTorch", needs=PYTORCH),
    "torch-compile-1thread": Entry("pytorch", "CompiledPyTorch", (1, 0), PYTORCH),
    "jax": Entry("jax_program", "Jax", needs=JAX),
}
"""Name of a contestant -> its entry."""


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    contestant, *workload = sys.argv[1:]
    serve = _matrix_products() if contestant == MATRIX_PRODUCT else _serve(contestant, *workload)
    print(json.dumps(next(serve)), file=answers)
    for line in sys.stdin:
        print(json.dumps(serve.send(json.loads(line))), file=answers)


def _serve(contestant: str, workload_name: str, *more: str) -> Iterator[dict[str, Any]]:
    """Yields what is to be known at the start, then an answer to every command."""
    workload = WORKLOADS[workload_name]
    kind, threads = contestant_class(contestant), CONTESTANTS[contestant].threads
    make = kind
    if CONTESTANTS[contestant].needs == TENSORFLOW_1:
        make = functools.partial(kind, interpreter=more[0])
    if contestant == OURS:
        if more:
            intra, inter = map(int, more)
            workload = dataclasses.replace(workload, threads=(intra, inter))
        threads = workload.threads
    if threads is not None:
        kind.set_threads(*threads)
    dataset = workload.dataset()
    prints = fingerprint(make, workload, dataset)
    gc.collect()  # that contestant's memory is not the other's
    runner = make(workload, dataset.images, dataset.pixel_scale)
    tasks_per_call = workload.eval_tasks if contestant == OURS else 1
    position = {"train": 1, "evaluate": 0}

    def train() -> None:
        runner.train(workload.training_tasks(dataset, position["train"]), 1.0)
        position["train"] += 1

    def evaluate() -> None:
        first = position["evaluate"]
        runner.evaluate(workload.evaluation_tasks(dataset, first, tasks_per_call))
        position["evaluate"] += tasks_per_call

    work = {"train": train, "evaluate": evaluate}
    units = {"train": 1, "evaluate": tasks_per_call}
    # The first calls trace and compile; they are not timed.
    expected = {phase: _seconds(call) for phase, call in work.items()}
    answer: dict[str, Any] = {
        "threads": kind.threads(),
        "fingerprint": {k: v.tolist() for k, v in prints.items()},
    }
    if hasattr(runner, "runs_on"):
        answer["runs_on"] = runner.runs_on
    while True:
        command = yield answer | {"peak_megabytes": runner.peak_megabytes()}
        phase = command["phase"]
        each = measure(work[phase], command["seconds"], expected[phase])
        answer = {"seconds": each / units[phase]}


def _matrix_products() -> Iterator[dict[str, Any]]:
    """As ``_serve``; answers the seconds that a large matrix product takes on all cores."""
    import tensorflow as tf

    from supervised_reptile.runs.record import environment

    tf.config.threading.set_intra_op_parallelism_threads(os.cpu_count() or 1)
    matrix = tf.random.stateless_uniform([MATRIX_SIZE, MATRIX_SIZE], seed=[0, 0])

    def multiply() -> None:
        tf.matmul(matrix, matrix)[0, 0].numpy()  # waits for the result

    expected = _seconds(multiply)
    known = environment()
    # They are this process' own; each contestant reports its own.
    answer = {"environment": {k: v for k, v in known.items() if not k.endswith("_op_threads")}}
    while True:
        command = yield answer
        answer = {"seconds": measure(multiply, command["seconds"], expected)}


def contestant_class(name: str) -> type:
    """The class of a contestant; imports what it needs."""
    entry = CONTESTANTS[name]
    return getattr(importlib.import_module(f"benchmarks.{entry.module}"), entry.name)


def fingerprint(
    make: Callable[..., Program], workload: Workload, dataset: FewShotDataset
) -> dict[str, np.ndarray]:
    """What tells whether a contestant computes what the others compute.

    A short meta-iteration of two tasks from fixed weights, so that optimizer slots that run on
    from task to task are seen, and a short evaluation. It is kept short because Adam's first
    steps are nearly ±learning rate, whatever the gradient's size: rounding errors then decide the
    way of weights whose gradient is almost nought, and trajectories part before long.

    Args:
        make: Class of the contestant.
        workload: What it is to run.
        dataset: The images.

    Returns:
        ``change``: the change of the weights, one vector, less the biases that a normalization
        follows: they have no effect, and no gradient but rounding errors. ``logits``: of the
        queries of one task, one vector.
    """
    short = workload.config.replace(meta_batch=2, inner_iters=1, eval_iters=3)
    workload = dataclasses.replace(workload, config=short)
    runner = make(workload, dataset.images, dataset.pixel_scale)
    start = workload.network.initial_weights()
    runner.load(start)
    runner.train(workload.training_tasks(dataset, 0), 1.0)
    changes = [now - before for now, before in zip(runner.weights(), start, strict=True)]
    before_normalization = range(1, 4 * BLOCKS, 4)
    kept = [c.ravel() for i, c in enumerate(changes) if i not in before_normalization]
    logits = runner.evaluate(workload.evaluation_tasks(dataset, 0, 1))
    runner.close()
    return {"change": np.concatenate(kept), "logits": logits.ravel()}


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Nine tenths of the numbers differ by less than this, in units of their root mean square."""
    apart = np.abs(np.asarray(theirs) - np.asarray(ours))
    return float(np.quantile(apart, 0.9) / np.sqrt(np.mean(np.square(ours))))


def measure(work: Callable[[], None], seconds: float, expected: float) -> float:
    """Mean seconds of a call of ``work``, repeated for ``seconds`` and at least once.

    Before short work one more call, not timed, brings its data back into the caches that another
    process has used meanwhile.
    """
    if expected < seconds:
        work()
    calls, started = 0, time.perf_counter()
    while True:
        work()
        calls += 1
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return elapsed / calls


def _seconds(work: Callable[[], None]) -> float:
    """Seconds of the second call of ``work``."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
