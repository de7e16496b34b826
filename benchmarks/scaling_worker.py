"""One process of benchmarks.scaling: python -m benchmarks.scaling_worker PARALLEL_TASKS THREADS.

Reads a phase and a number of units from each line of stdin; answers the seconds they took, and
those spent in sums over workers.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time

from benchmarks.workloads import WORKLOADS
from supervised_reptile.startup import import_tensorflow, set_threads

ROW = "omniglot-1shot-5way"


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    parallel_tasks, threads = map(int, sys.argv[1:])
    import_tensorflow()
    from supervised_reptile.evaluation import evaluate
    from supervised_reptile.from_config import (
        evaluation_spec,
        learner_from_config,
        model_from_config,
    )
    from supervised_reptile.workers import Workers, cluster_from_environment

    set_threads(1, threads)
    cluster = cluster_from_environment()
    workers = Workers(cluster) if cluster else None
    workload = WORKLOADS[ROW]
    dataset = workload.dataset()
    config = workload.config.replace(parallel_tasks=parallel_tasks)
    learner = learner_from_config(
        config,
        model_from_config(config),
        input_scale=dataset.pixel_scale,
        lanes=threads,
        workers=workers,
    )
    waited = 0.0
    if workers is not None:
        add_up = workers.sum

        def timed(values):
            nonlocal waited
            started = time.perf_counter()
            total = add_up(values)
            waited += time.perf_counter() - started
            return total

        workers.sum = timed
    iterations = itertools.count()

    def train(count: int) -> None:
        for i in itertools.islice(iterations, count):
            float(learner.train_step(dataset.images, workload.training_tasks(dataset, i), 1.0))

    def evaluation(count: int) -> None:
        evaluate(
            learner,
            dataset,
            "test",
            evaluation_spec(config),
            transductive=True,
            tasks=count,
            tasks_per_call=8,
            progress=False,
        )

    work = {"train": train, "evaluate": evaluation}
    for line in sys.stdin:
        phase, count = line.split()
        waited, started = 0.0, time.perf_counter()
        work[phase](int(count))
        print(json.dumps((time.perf_counter() - started, waited)), file=answers)


if __name__ == "__main__":
    main()
