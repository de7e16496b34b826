"""Tables of full runs, of the campaign of faults and of benchmarks."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from records import RESULTS, record, table
from scipy import stats

_PROGRAMS = {
    "keras-step": "compiled Keras step",
    "tf1-style": "TF1-style session",
    "pytorch": "PyTorch",
    "torch-compile": "`torch.compile`",
    "jax": "JAX",
}


def paired(name: str) -> str:
    """Differences from the published configuration, and those of the seeds if there are several."""
    published, *variants = record(f"experiments/{name}/results.json")["variants"]
    heads = ["", "accuracy", "difference (tasks)"]
    rows = [[row["variant"], f"{row['test_accuracy']:.2f}", _difference(row)] for row in variants]
    first = [published["variant"], f"{published['test_accuracy']:.2f}", ""]
    if published["interval95_seeds"] is not None:
        heads += ["(seeds)", "seeds from … to"]
        first += ["", ""]
        for cells, row in zip(rows, variants, strict=True):
            cells += [f"± {row['interval95_seeds']:.2f}", _range_of_seeds(row)]
    return table(heads, [first, *rows], len(heads) - 1)


def _difference(row: Mapping[str, float]) -> str:
    return f"{row['difference']:+.2f} ± {row['interval95_tasks']:.2f}"


def _range_of_seeds(row: Mapping[str, float]) -> str:
    return f"{row['lowest_seed']:+.2f} to {row['highest_seed']:+.2f}"


def scaling(phase: str) -> str:
    """Speed of parallel tasks and workers: docs/scaling.md."""
    rows = [
        (name, f"{row['ratio_to_chain']:.2f}", f"{row['lowest']:.2f} to {row['highest']:.2f}")
        for name, row in record("benchmarks/scaling.json")["phases"][phase].items()
    ]
    return table(("", "speed (the chain: 1)", "lowest to highest round"), rows, 2)


def scaling_on_paper(bytes_per_second: float = 1e9 / 8, latency: float = 1e-4) -> str:
    """The efficiency of workers by the formula of docs/scaling.md."""
    from benchmarks.workloads import WORKLOADS

    report = record("benchmarks/scaling.json")
    workload = WORKLOADS[report["row"]]
    size = 4 * 3 * sum(map(math.prod, workload.network.weight_shapes))  # weights and two slots
    separate = report["phases"]["train"]["two trainings, one thread each"]["per_second"] / 2
    task = 1 / (separate * workload.config.meta.meta_batch)
    rows = []
    for workers in (1, 2, 4, 8, 16, 32, 64):
        total = 2 * (workers - 1) * (size / workers / bytes_per_second + latency)
        one, four = (n * task / (n * task + total) for n in (1, 4))
        rows.append((workers, f"{1000 * total:.1f} ms", f"{one:.0%}", f"{four:.0%}"))
    heads = ("workers", "sum", f"a task each ({1000 * task:.0f} ms)", "four tasks each")
    return table(heads, rows, 4)


def speed() -> str:
    """Time of other programs / ours: docs/performance.md."""
    rows = []
    for row in record("benchmarks/benchmark.json")["rows"]:
        for phase, title in (("train", "meta-iteration"), ("evaluate", "evaluation task")):
            measured = row[phase]["contestants"]
            share = measured["ours"]["share_of_matrix_product_rate"]["median"]
            cells = [row["title"] if phase == "train" else "", title, f"{share:.0%}"]
            for name in _PROGRAMS:
                ratios = (
                    f"{measured[each]['ratio_to_ours']['median']:.2f}"
                    for each in (name, f"{name}-1thread")
                    if each in measured
                )
                cells.append(" / ".join(ratios))
            rows.append(cells)
    return table(("", "", "of the floor's speed", *_PROGRAMS.values()), rows, 1 + len(_PROGRAMS))


def tensorflow1() -> str:
    """Time of the session program / ours, in TensorFlow 1 and 2: docs/performance.md."""
    programs = ("tf1", "tf1-1thread", "tf1-style", "tf1-style-1thread")
    rows = []
    for row in record("benchmarks/tensorflow1.json")["rows"]:
        for phase, title in (("train", "meta-iteration"), ("evaluate", "evaluation task")):
            measured = row[phase]["contestants"]
            ratios = (f"{measured[each]['ratio_to_ours']['median']:.2f}" for each in programs)
            rows.append((row["title"] if phase == "train" else "", title, *ratios))
    heads = ("", "", "TensorFlow 1.8.0", "1 thread", "TensorFlow 2.21", "1 thread")
    return table(heads, rows, len(programs))


def omniglot_5way() -> str:
    """All full runs of Omniglot 5-way by seed: docs/reproduction.md."""
    from supervised_reptile.reproduction.comparison import compare

    rows = []
    for entry in compare(RESULTS / "runs"):
        if entry["row"] != "omniglot-5way" or entry["status"] != "full":
            continue
        records = [record(path.removeprefix("results/")) for path in entry["records"]]
        ours = [100 * each["accuracy"]["test"]["mean"] for each in records]
        published, independent = entry["published"][0], entry["independent"]
        mean, half = _interval_over_seeds(ours)
        others = _interval_over_seeds(independent)
        rows.append(
            (
                f"{entry['shots']}-shot{', transductive' if entry['transductive'] else ''}",
                f"{published['mean']:.2f} ± {published['spread']:.2f}",
                ", ".join(f"{each:.2f}" for each in ours),
                f"{mean:.2f} ± {half:.2f}",
                f"{others[0]:.2f} ± {others[1]:.2f}",
                f"{mean - published['mean']:+.2f}",
                f"{mean - others[0]:+.2f} ± {_welch(ours, independent):.2f}",
            )
        )
    seeds = ", ".join(map(str, range(len(ours))))
    heads = ("test classes", "published", f"seeds {seeds}", "mean", "independent runs")
    return table((*heads, "− published", "− independent"), rows, 6)


def uncertainties() -> str:
    """Both uncertainties of the runs with results per task: docs/reproduction.md."""
    import numpy as np

    from supervised_reptile.reproduction.uncertainty import uncertainty

    rows = []
    for path in sorted((RESULTS / "runs").glob("omniglot-5way/seed*/results-*.npz")):
        with np.load(path) as found:
            for split in ("test", "train"):
                accuracies = found[f"{split}/correct"] / found[f"{split}/queries"]
                each = uncertainty(accuracies, found[f"{split}/classes"])
                name = path.stem.removeprefix("results-").replace("-5way-", ", ")
                rows.append(
                    (
                        f"seed {path.parent.name.removeprefix('seed')}, {name}, {split} classes",
                        f"{100 * each.mean:.2f}",
                        f"{100 * each.tasks:.2f}",
                        f"{100 * each.classes:.2f}",
                    )
                )
    heads = ("", "accuracy", "standard error over tasks", "over the choice of classes")
    return table(heads, rows, 3)


def faults() -> str:
    """The campaign of faults, all its parts together: docs/reliability.md."""
    verdicts = ("same bits", "accepted", "one clear line", "traceback", "silently wrong")
    total: dict[str, Counter[str]] = {}
    for part in record("faults.json"):
        for kind, counts in part["faults"].items():
            total.setdefault(kind, Counter()).update(counts)
    rows = [
        (kind, f"{counts.total():,}", *(f"{counts[each]:,}" for each in verdicts))
        for kind, counts in total.items()
    ]
    return table(("fault", "tried", *verdicts), rows, 6)


def _interval_over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half its 95 % interval over other runs (Student's t)."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), float(stats.t.ppf(0.975, len(values) - 1)) * error


def _welch(one: Sequence[float], two: Sequence[float]) -> float:
    """Half the 95 % interval of a difference of means (Welch)."""
    a, b = (statistics.variance(each) / len(each) for each in (one, two))
    freedom = (a + b) ** 2 / (a**2 / (len(one) - 1) + b**2 / (len(two) - 1))
    return float(stats.t.ppf(0.975, freedom)) * math.sqrt(a + b)


TABLES = {
    "omniglot 5-way": omniglot_5way,
    "uncertainties": uncertainties,
    "faults": faults,
    "paired": lambda: paired("paired"),
    "meta-batches": lambda: paired("meta-batches"),
    "momentum": lambda: paired("momentum"),
    "scaling in training": lambda: scaling("train"),
    "scaling in evaluation": lambda: scaling("evaluate"),
    "scaling on paper": scaling_on_paper,
    "speed": speed,
    "tensorflow 1": tensorflow1,
}
"""Name of a table -> the function that returns it."""
