"""The record of a run: what was computed, with what, where, and how it came out."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervised_reptile.config import Config
from supervised_reptile.errors import ConfigError
from supervised_reptile.runs.files import write_whole

if TYPE_CHECKING:
    from supervised_reptile.evaluation import Accuracy

_PACKAGES = (
    *("supervised-reptile", "tensorflow", "tensorflow-cpu", "keras"),
    *("tensorflow-datasets", "numpy", "pillow"),
)

_TRAINED_ON = "trained_on.json"


def note_training(directory: Path, iteration: int) -> None:
    """Note in a run's directory what a part of its training runs on, if that is not as before.

    Args:
        directory: Directory of the run.
        iteration: Meta-iterations done before this part.
    """
    # A run may go on from an older checkpoint than its last part began with.
    parts = [
        part for part in training_environments(directory) if part["from_iteration"] < iteration
    ]
    here = environment()
    if not parts or parts[-1]["environment"] != here:
        parts.append({"from_iteration": iteration, "environment": here})
    write_whole(directory / _TRAINED_ON, json.dumps(parts, indent=2) + "\n")


def training_environments(directory: Path) -> list[dict[str, Any]]:
    """What the training in a run's directory ran on.

    Args:
        directory: Directory of the run.

    Returns:
        ``from_iteration`` and ``environment`` of each part that differs from the one before;
        empty where nothing is noted.
    """
    path = directory / _TRAINED_ON
    return json.loads(path.read_text()) if path.exists() else []


def write_record(
    path: Path,
    config: Config,
    accuracies: Mapping[str, Accuracy],
    *,
    iterations: int,
    training_seconds: float,
    evaluation_seconds: float,
    trained_with: Config | None = None,
    trained_on: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write ``results.json``. Its ``environment`` is that of this process, which evaluated.

    Args:
        path: File to write.
        config: Configuration of the run, evaluation included.
        accuracies: Split name to accuracy.
        iterations: Meta-iterations the weights were trained for.
        training_seconds: Wall time of the training in seconds, over all its parts.
        evaluation_seconds: Wall time of the final evaluation in seconds; where one evaluation gave
            several records, of all of it.
        trained_with: Configuration of the training where it is not ``config``.
        trained_on: What the training ran on, as `training_environments` gives it.
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
    if trained_on:
        record["trained_on"] = list(trained_on)
    write_whole(path, json.dumps(record, indent=2) + "\n")


def is_record_of(path: Path, config: Config) -> bool:
    """Whether a record is there, whole, and of a configuration trained to its end."""
    try:
        record = json.loads(path.read_text())
        found = Config.from_dict(record["config"])
    except (FileNotFoundError, ValueError, KeyError, ConfigError):
        return False
    whole_length = config.meta.meta_iters
    return found == config and record.get("iterations", whole_length) == whole_length


def environment() -> dict[str, Any]:
    """Versions, hardware and commit, as plain values for JSON."""
    import tensorflow as tf  # not at the top: who reads records does without

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
        "commit": _COMMIT,
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

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        # An environment inside another project's checkout is not that project.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return None


# Once, at the start: a long run goes on with the code that it has, whatever is committed meanwhile.
_COMMIT = _commit()
