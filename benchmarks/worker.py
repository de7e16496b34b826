"""One contestant in a process of its own: ``python -m benchmarks.worker CONTESTANT WORKLOAD``.

Reads commands from stdin and answers on stdout, a line of JSON each; computes only in between.
What libraries print goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.workloads import WORKLOADS, Workload

MATRIX_PRODUCT = "matrix-product"
MATRIX_SIZE = 2048
OURS = "ours"
CONTESTANTS = {
    OURS: "contestants:Ours",
    "keras-step": "contestants:KerasStep",
    "eager": "contestants:KerasEager",
    "tf1-style": "contestants:TF1Style",
    "pytorch": "pytorch:PyTorch",
}
"""Name of a contestant -> module:class."""

_FINGERPRINT_STEPS = 5


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    contestant, *workload = sys.argv[1:]
    serve = _matrix_products() if contestant == MATRIX_PRODUCT else _serve(contestant, *workload)
    print(json.dumps(next(serve)), file=answers)
    for line in sys.stdin:
        print(json.dumps(serve.send(json.loads(line))), file=answers)


def _serve(contestant: str, workload_name: str) -> Iterator[dict[str, Any]]:
    """Yields what is to be known at the start, then an answer to every command."""
    workload = WORKLOADS[workload_name]
    module, _, name = CONTESTANTS[contestant].partition(":")
    kind = getattr(importlib.import_module(f"benchmarks.{module}"), name)
    kind.set_threads(workload)
    dataset = workload.dataset()
    runner = kind(workload, dataset.images, dataset.pixel_scale)
    # The first calls trace and compile; they are not timed.
    logits = fingerprint(runner, workload)
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
    expected = {phase: _seconds(call) for phase, call in work.items()}
    answer: dict[str, Any] = {"threads": kind.threads(), "logits": logits.tolist()}
    while True:
        command = yield answer | {"peak_megabytes": _peak_megabytes()}
        phase = command["phase"]
        each = measure(work[phase], command["seconds"], expected[phase])
        answer = {"seconds": each / units[phase]}


def _matrix_products() -> Iterator[dict[str, Any]]:
    """As `_serve`; answers the seconds that a large matrix product takes on all cores."""
    import tensorflow as tf

    from supervised_reptile.results import environment

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


def fingerprint(runner: Any, workload: Workload) -> np.ndarray:
    """Logits that depend on all that a contestant computes, to compare contestants by.

    One meta-iteration from fixed weights on fixed tasks, then some steps on a fixed evaluation
    task and the prediction of its queries. Call it on a new contestant, as its optimizer's slots
    must be new. (Weights themselves are less suited: the biases before a normalization have no
    effect and no gradient but rounding errors, which Adam blows up to whole steps.)

    Args:
        runner: A contestant.
        workload: What it runs.

    Returns:
        float32 [1, queries, classes].
    """
    dataset = workload.dataset()
    runner.load(workload.network.initial_weights())
    runner.train(workload.training_tasks(dataset, 0), 1.0)
    tasks = workload.evaluation_tasks(dataset, 0, 1)
    steps = tasks.steps._replace(
        indices=tasks.steps.indices[:, :_FINGERPRINT_STEPS],
        labels=tasks.steps.labels[:, :_FINGERPRINT_STEPS],
    )
    return runner.evaluate(tasks._replace(steps=steps))


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


def _peak_megabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
