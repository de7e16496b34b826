"""Where the time of a meta-iteration goes: python -m benchmarks.profile [ROW].

Prints, for one meta-iteration of a row of the benchmark, the kernels by the time they took, summed
over the threads, next to the total wall time. Uses TensorFlow's own profiler.
"""

from __future__ import annotations

import collections
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from benchmarks.workloads import WORKLOADS
from supervised_reptile.config.command_line import Flag, run_program
from supervised_reptile.startup import import_tensorflow

FLAGS = {"row": Flag("omniglot-1shot-5way", "Row of the benchmark.", choices=list(WORKLOADS))}

_SHOWN = 16
# Names of whole graphs and of the executor's own bookkeeping, which contain the kernels.
_CONTAINERS = ("Run", "Process", "Eager", "TFE_", "_inference", "_meta_iteration", "Record")


def kernel_milliseconds(folder: Path) -> dict[str, tuple[float, int]]:
    """Return milliseconds over all threads and number of calls per kernel, from a profile."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    spent, calls = collections.Counter(), collections.Counter()
    for path in folder.rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
        for plane in (p for p in space.planes if p.name == "/host:CPU"):
            for event in (e for line in plane.lines for e in line.events):
                name = plane.event_metadata[event.metadata_id].name.rpartition(":")[2].strip()
                if name[:1].isupper() or name.startswith("_Mkl"):
                    spent[name] += event.duration_ps / 1e9
                    calls[name] += 1
    return {
        name: (value, calls[name])
        for name, value in spent.most_common()
        if not any(part in name for part in _CONTAINERS)
    }


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line.

    Args:
        argv: The program's name and its arguments; ``sys.argv`` by default.
    """
    run_program(_profile, FLAGS, argv, __doc__, operands=("row",))


def _profile(row: str) -> None:
    """Profile one meta-iteration of a row and print its kernels."""
    import_tensorflow()
    import tensorflow as tf

    from benchmarks.contestants import Ours

    workload = WORKLOADS[row]
    Ours.set_threads(*workload.threads)
    dataset = workload.dataset()
    ours = Ours(workload, dataset.images, dataset.pixel_scale)
    for iteration in range(4):
        ours.train(workload.training_tasks(dataset, iteration), 1.0)
    tasks = workload.training_tasks(dataset, 4)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            started = time.perf_counter()
            ours.train(tasks, 1.0)
            wall = 1e3 * (time.perf_counter() - started)
        kernels = kernel_milliseconds(Path(folder))
    total = sum(value for value, _ in kernels.values())
    print(
        f"{row}: wall {wall:.1f} ms under the profiler, kernels {total:.1f} ms over all threads\n"
    )
    print("| kernel | ms | calls | share |\n|---|---:|---:|---:|")
    for name, (value, calls) in list(kernels.items())[:_SHOWN]:
        print(f"| {name} | {value:.2f} | {calls} | {100 * value / total:.0f} % |")


if __name__ == "__main__":
    main()
