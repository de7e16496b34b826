"""The record of a run: its configuration, environment and results."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from supervised_reptile.config import Config
from supervised_reptile.errors import ConfigError, RunError, printable
from supervised_reptile.runs.files import read_json, read_text, set_aside, write_whole, writing

if TYPE_CHECKING:
    from supervised_reptile.evaluation import Accuracy, Outcome

_PACKAGES = (
    *("supervised-reptile", "tensorflow", "tensorflow-cpu", "keras"),
    *("tensorflow-datasets", "numpy", "pillow"),
)

_TRAINED_ON = "trained_on.json"


def note_training(directory: Path, iteration: int) -> None:
    """Note in a run's directory the environment of its training, if it has changed.

    Args:
        directory: Directory of the run.
        iteration: Number of meta-iterations before this part of the training.

    Raises:
        RunError: The note cannot be written.
    """
    path = directory / _TRAINED_ON
    if path.exists() and not _is_readable(path):
        aside = set_aside(path)
        print(f"note: {printable(path)} is damaged and was renamed to {printable(aside.name)}")
    # A run may resume from an older checkpoint than its last part started from.
    parts = [
        part for part in training_environments(directory) if part["from_iteration"] < iteration
    ]
    here = environment()
    if not parts or parts[-1]["environment"] != here:
        parts.append({"from_iteration": iteration, "environment": here})
    write_whole(path, json.dumps(parts, indent=2) + "\n")


def training_environments(directory: Path) -> list[dict[str, Any]]:
    """Return the environments of the training in a run's directory.

    Args:
        directory: Directory of the run.

    Returns:
        ``from_iteration`` and ``environment`` of each part that differs from the previous one.
        Empty if there is no note or it is damaged, so a damaged note prevents no record.
    """
    path = directory / _TRAINED_ON
    return read_json(path) if _is_readable(path) else []


def _is_readable(path: Path) -> bool:
    try:
        parts = read_json(path)
    except RunError:
        return False
    return isinstance(parts, list) and all(
        isinstance(part, dict)
        and isinstance(part.get("from_iteration"), int)
        and isinstance(part.get("environment"), dict)
        for part in parts
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
    trained_on: Sequence[Mapping[str, Any]] = (),
    data: Mapping[str, str] | None = None,
    outcomes: Mapping[str, Outcome] | None = None,
) -> None:
    """Write ``results.json``, whose ``environment`` is that of this evaluating process.

    The results of each task are written to a compressed file of NumPy arrays with the same name,
    ``results.npz``: for each split ``<split>/correct``, int16 [tasks], the number of queries
    classified correctly (−1 where the predictions were not finite); ``<split>/classes``,
    int32 [tasks, N], ids of the classes in the order of their labels; and ``<split>/queries``,
    the number of queries in a task. It also contains a checksum of the JSON, ``record_crc32``.

    Args:
        path: File to write.
        config: Configuration of the run, evaluation included.
        accuracies: Accuracy of each split.
        iterations: Number of meta-iterations of the training.
        training_seconds: Wall time of the training in seconds, over all its parts.
        evaluation_seconds: Wall time of the final evaluation in seconds; if it wrote several
            records, their total.
        trained_with: Configuration of the training if it is not ``config``.
        trained_on: Environments of the training, from ``training_environments``.
        data: Fingerprint and description of the data.
        outcomes: Results of each task, by split.

    Raises:
        RunError: A file cannot be written.
    """
    record: dict[str, Any] = {
        "accuracy": {split: _plain(value) for split, value in accuracies.items()},
        "iterations": iterations,
        "training_seconds": round(training_seconds, 1),
        "evaluation_seconds": round(evaluation_seconds, 1),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "config": config.to_dict(),
        "environment": environment(),
    }
    if data:
        record["data"] = dict(data)
    if trained_with is not None:
        record["trained_with"] = trained_with.to_dict()
    if trained_on:
        record["trained_on"] = list(trained_on)
    text = json.dumps(record, indent=2) + "\n"
    if outcomes:
        _write_outcomes(path.with_suffix(".npz"), outcomes, _check_sum(text))
    write_whole(path, text)


def _check_sum(text: str) -> np.uint32:
    return np.uint32(zlib.crc32(text.encode()))


def _write_outcomes(path: Path, outcomes: Mapping[str, Outcome], check_sum: np.uint32) -> None:
    arrays: dict[str, Any] = {"record_crc32": check_sum}
    for split, outcome in outcomes.items():
        arrays[f"{split}/correct"] = outcome.correct
        arrays[f"{split}/classes"] = outcome.classes
        arrays[f"{split}/queries"] = np.int16(outcome.queries)
    part = path.with_name(f"{path.name}.part")
    with writing(path):
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def is_record_of(path: Path, config: Config) -> bool:
    """Whether a file is a complete record of a fully trained configuration."""
    return record_of(path, config) is not None


def record_of(path: Path, config: Config) -> dict[str, Any] | None:
    """Return a record if it is complete and belongs to a fully trained configuration."""
    try:
        record = read_json(path)
        found = Config.from_dict(record["config"])
    except (RunError, ConfigError, KeyError, TypeError, OverflowError):
        return None
    whole_length = config.meta.meta_iters
    is_it = found == config and record.get("iterations", whole_length) == whole_length
    return record if is_it else None


def recorded_accuracies(path: Path, config: Config) -> dict[str, Accuracy] | None:
    """Return the accuracies of a record, by split.

    ``None`` if there is no complete record of that configuration, fully trained, or if the record
    has changed since it was written.
    """
    from supervised_reptile.evaluation import Accuracy  # imports TensorFlow

    record = record_of(path, config)
    if record is None:
        return None
    try:
        if (arrays := path.with_suffix(".npz")).exists():  # version 0.1 wrote none
            with np.load(arrays) as found:
                if found["record_crc32"] != _check_sum(read_text(path)):
                    return None
        return {
            split: Accuracy(
                float(each["mean"]),
                math.nan if each["interval95"] is None else float(each["interval95"]),
                int(each["tasks"]),
                int(each.get("not_finite", 0)),
            )
            for split, each in record["accuracy"].items()
        }
    except (RunError, KeyError, TypeError, ValueError, AttributeError, OSError):
        return None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        return None


def environment() -> dict[str, Any]:
    """Return versions, hardware and commit, as plain values for JSON."""
    import tensorflow as tf  # not at the top: reading records does not need it

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
    """Return plain values for JSON; the interval of a single task is ``None``, not NaN."""
    values = dataclasses.asdict(accuracy)
    if not math.isfinite(accuracy.interval95):
        values["interval95"] = None
    if not accuracy.not_finite:
        del values["not_finite"]
    return values


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit of the checkout; ``None`` for an installed copy."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        # The package may be installed inside another project's checkout.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.CalledProcessError):
        return None


# Once, at the start: later commits do not change the code of a long run.
_COMMIT = _commit()
