"""Many trainings of the main job side by side: resumable, skipped where they are finished."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.common import DataPlace
from supervised_reptile.config import Config, RunOptions
from supervised_reptile.config.declaration import Checked, at_least, one_of, setting, settings
from supervised_reptile.reproduction.jobs import Job, run_side_by_side
from supervised_reptile.runs.record import is_record_of
from supervised_reptile.startup import import_tensorflow


@settings("Experiment")
class TrainingSettings(Checked):
    """What every experiment of trainings lets its user choose."""

    dataset: str = setting(
        "Data set; glyphs needs no data.", one_of(("omniglot", "glyphs")), default="omniglot"
    )
    eval_samples: int = setting(
        "Tasks in the final evaluation of each split.", at_least(1), default=300
    )


@settings("Experiment")
class TrainingPlace(DataPlace):
    """Where an experiment's trainings run, and where its tables and figures go."""

    work_dir: str = setting(
        "Folder of the trainings. When not given: runs/ and the experiment's name.", default=""
    )
    jobs: int = setting("Trainings side by side, each of one thread.", at_least(1), default=2)

    def work_folder(self, name: str) -> Path:
        """Return the folder of the trainings' folders."""
        return Path(self.work_dir or f"runs/{name}")

    def training_folder(self, name: str, training: str, config: Config) -> Path:
        """Return the folder of one training, of its own for each length."""
        return self.work_folder(name) / f"{training}, {config.meta.meta_iters} iterations"


@dataclasses.dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        record: What its ``results.json`` holds.
        curve: Its learning curve: column name to float64 [points].
        by_task: Accuracy on each test task in percent, float64 [tasks].
    """

    record: Mapping[str, Any]
    curve: Mapping[str, Any]
    by_task: Any

    def accuracy(self, split: str = "test") -> tuple[float, float]:
        """Mean accuracy of a split in percent, and half its 95 % interval."""
        return percent(self.record["accuracy"][split])


def percent(accuracy: Mapping[str, Any]) -> tuple[float, float]:
    """Mean in percent and half its 95 % interval, of an accuracy as records have it."""
    return 100 * accuracy["mean"], 100 * (accuracy["interval95"] or 0.0)


def mean_over_tasks(by_task: Any) -> tuple[float, float]:
    """Mean of values float64 [tasks], and half its 95 % interval over random tasks."""
    half = 1.96 * float(by_task.std(ddof=1)) / len(by_task) ** 0.5
    return float(by_task.mean()), half


def mean_over_seeds(found: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean of accuracies, and half its 95 % interval over the tasks, from those of each seed."""
    half = sum(interval**2 for _, interval in found) ** 0.5 / len(found)
    return sum(mean for mean, _ in found) / len(found), half


def train_all(
    configs: Mapping[str, Config], place: TrainingPlace, name: str, *, pretraining_dir: str = ""
) -> dict[str, Training]:
    """Train and evaluate each configuration as ``run_omniglot.py`` would, each in its folder.

    Finished trainings are not repeated, and stopped ones resume from their checkpoints.

    Args:
        configs: Name of each training to what it computes.
        place: Folders, and the number of parallel trainings. Each writes its output to ``run.log``.
        name: The experiment's.
        pretraining_dir: As in ``RunOptions``.

    Returns:
        The finished trainings by name, in the order of ``configs``.

    Raises:
        RunError: Trainings failed; all others were carried out.
        RunInterrupted: A signal stopped them; all is saved.
    """
    folders = {n: place.training_folder(name, n, config) for n, config in configs.items()}
    work = [
        Job(
            n,
            _train,
            (config.to_json(), str(folders[n]), place.data_dir, pretraining_dir),
            folders[n] / "run.log",
        )
        for n, config in configs.items()
        if not is_record_of(folders[n] / "results.json", config)
    ]
    print(f"{len(configs) - len(work)} of {len(configs)} trainings are finished", flush=True)
    run_side_by_side(work, place.jobs, lambda job: print(f"finished: {job.name}", flush=True))
    return {n: read_training(folder) for n, folder in folders.items()}


def read_training(folder: Path) -> Training:
    """Read what a finished training left in its folder."""
    import numpy as np

    from supervised_reptile.runs.learning_curve import read_curve

    record = json.loads((folder / "results.json").read_text())
    with np.load(folder / "results.npz") as found:
        # Predictions that were not finite are counted as −1: none is correct.
        by_task = 100 * np.maximum(found["test/correct"], 0) / found["test/queries"]
    return Training(record, read_curve(folder / "curve.csv"), by_task)


def _train(config: str, folder: str, data_dir: str, pretraining_dir: str) -> None:
    """One training, in a process of its own."""
    import_tensorflow()
    from supervised_reptile.main import run

    options = RunOptions(
        checkpoint=folder,
        data_dir=data_dir,
        pretraining_dir=pretraining_dir,
        intra_op_threads=1,
        inter_op_threads=1,
        checkpoint_interval=500,
    )
    run(Config.from_json(config), options)
