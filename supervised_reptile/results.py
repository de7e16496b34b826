"""The record of a run: what was computed, with what, where, and how it came out.

``python -m supervised_reptile.results`` writes the table of the records under ``results/`` into
``README.md``.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from supervised_reptile.config import Config
from supervised_reptile.curve import write_whole
from supervised_reptile.evaluation import Accuracy
from supervised_reptile.paper import PUBLISHED, dataset_facts

_PACKAGES = (
    *("supervised-reptile", "tensorflow", "tensorflow-cpu", "keras"),
    *("tensorflow-datasets", "numpy", "pillow"),
)


def write_record(
    path: Path,
    config: Config,
    accuracies: Mapping[str, Accuracy],
    *,
    iterations: int,
    training_seconds: float,
    evaluation_seconds: float,
    trained_with: Config | None = None,
) -> None:
    """Write ``results.json``.

    Args:
        path: File to write.
        config: Configuration of the run, evaluation included.
        accuracies: Split name to accuracy.
        iterations: Meta-iterations the weights were trained for.
        training_seconds: Wall time of the training in seconds, over all its parts.
        evaluation_seconds: Wall time of the final evaluation in seconds.
        trained_with: Configuration of the training where it is not ``config``.
    """
    record: dict[str, Any] = {
        "accuracy": {split: _plain(value) for split, value in accuracies.items()},
        "iterations": iterations,
        "training_seconds": round(training_seconds, 1),
        "evaluation_seconds": round(evaluation_seconds, 1),
        "config": config.to_dict(),
        "environment": environment(),
    }
    if trained_with is not None:
        record["trained_with"] = trained_with.to_dict()
    write_whole(path, json.dumps(record, indent=2) + "\n")


def environment() -> dict[str, Any]:
    """Versions, hardware and commit, as plain values for JSON."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": [device.name for device in tf.config.list_physical_devices("GPU")],
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "commit": _commit(),
    }


def _plain(accuracy: Accuracy) -> dict[str, Any]:
    """As JSON has no NaN, the interval of a single task is ``None``."""
    interval = accuracy.interval95
    return dataclasses.asdict(accuracy) | {
        "interval95": interval if math.isfinite(interval) else None
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Commit of the checkout the package runs from; ``None`` for an installed copy."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def results_table(root: Path) -> str:
    """The table of all records below a folder, in Markdown, sorted by their paths.

    A run shorter than the paper's is marked as such, and the published number stands beside it
    for orientation only.

    Args:
        root: Folder that holds ``**/results*.json``.
    """
    lines = [
        "| data set | task | algorithm | meta-iterations | training classes | test classes "
        "| paper | training time | record |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(root.rglob("results*.json")):
        lines.append(_table_row(json.loads(path.read_text()), path.relative_to(root.parent)))
    return "\n".join(lines) + "\n"


def _table_row(record: Mapping[str, Any], path: Path) -> str:
    evaluated = Config.from_dict(record["config"])
    trained = Config.from_dict(record.get("trained_with", record["config"]))
    task, transductive = evaluated.task, evaluated.eval.transductive
    algorithm, optimizer = trained.meta.algorithm, trained.inner.inner_optimizer
    column = dataset_facts(task.dataset).column(task.classes, task.shots)
    full = column.paper_values(optimizer)["meta_iters"]
    length = f"{record['iterations']:,}"
    if record["iterations"] < full:
        length += f" (shortened from {full:,})"
    key = (task.dataset, algorithm, transductive, task.classes, task.shots)
    # The published rows were trained with Adam and interpolation.
    as_published = (optimizer, trained.meta.outer_optimizer) == ("adam", "interpolation")
    mean, spread = PUBLISHED.get(key, (None, None)) if as_published else (None, None)
    cells = [
        task.dataset,
        f"{task.shots}-shot {task.classes}-way{', transductive' if transductive else ''}",
        {"reptile": "Reptile", "fomaml": "FOMAML"}[algorithm] + f", {optimizer}",
        length,
        *(_percent(record["accuracy"][split]) for split in ("train", "test")),
        "" if mean is None else f"{mean:g} ± {spread:g}",
        f"{record['training_seconds'] / 60:.1f} min, {record['environment']['cores']} cores",
        f"[{path.parent.name}]({path.as_posix()})",
    ]
    return f"| {' | '.join(cells)} |"


def _percent(accuracy: Mapping[str, Any]) -> str:
    interval = accuracy["interval95"]
    return f"{100 * accuracy['mean']:.1f}" + (
        "" if interval is None else f" ± {100 * interval:.1f}"
    )


def write_readme_table(readme: Path, root: Path) -> None:
    """Put the table of the records below ``root`` between the marks of a README.

    Raises:
        ValueError: The file has no ``<!-- results -->`` … ``<!-- /results -->``.
    """
    begin, end = "<!-- results -->\n", "<!-- /results -->"
    before, found, rest = readme.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{readme} must hold the marks {begin.strip()} and {end}")
    write_whole(readme, f"{before}{begin}{results_table(root)}{end}{after}")


if __name__ == "__main__":
    project = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    write_readme_table(project / "README.md", project / "results")
