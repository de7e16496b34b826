"""Many trainings of the main job beside one another: resumable, skipped where they are finished."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from supervised_reptile.config import Config, RunOptions
from supervised_reptile.errors import RunError, UserError
from supervised_reptile.options import default_data_dir
from supervised_reptile.quiet import import_tensorflow

FLAGS = {
    "dataset": ("omniglot", "Data set: omniglot, or glyphs, which needs no data."),
    "data_dir": (default_data_dir(), "Directory of the data sets."),
    "work_dir": ("", "Folder of the trainings; empty: runs/ and the experiment's name."),
    "jobs": (2, "Trainings side by side, each of one thread, at least 1."),
}
"""What every experiment of trainings takes on its command line."""


@dataclasses.dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        record: What its ``results.json`` holds.
        curve: Its learning curve: column name to float64 [points].
    """

    record: Mapping[str, Any]
    curve: Mapping[str, Any]

    def accuracy(self, split: str = "test") -> tuple[float, float]:
        """Mean accuracy of a split in percent, and half its 95 % interval."""
        found = self.record["accuracy"][split]
        return 100 * found["mean"], 100 * (found["interval95"] or 0.0)


def train_all(
    configs: Mapping[str, Config], work_dir: Path, *, data_dir: str, jobs: int
) -> dict[str, Training]:
    """Train and evaluate each configuration as ``run_omniglot.py`` would, each in its folder.

    What is finished is not run again, and what was stopped goes on from its checkpoint.

    Args:
        configs: Name of each training, also that of its folder, to what it computes.
        work_dir: Folder of their folders; the output of each stands in its ``run.log``.
        data_dir: Directory of the data sets.
        jobs: Processes side by side, each of one thread; 1 does without.

    Returns:
        The finished trainings by name, in the order of ``configs``.

    Raises:
        RunError: ``jobs`` is out of range, or a training failed.
    """
    if jobs < 1:
        raise RunError(f"--jobs: must be at least 1. Received: {jobs}")
    left = {n: c for n, c in configs.items() if not _is_finished(work_dir / n, c)}
    with (
        contextlib.closing(_results(left, work_dir, data_dir, jobs)) as results,
        tqdm(total=len(configs), initial=len(configs) - len(left), unit="training") as bar,
    ):
        for name, problem in results:
            if problem:
                raise RunError(f"{name}: {problem}")
            bar.update()
            bar.set_postfix_str(name, refresh=False)
    return {name: read_training(work_dir / name) for name in configs}


def _results(
    configs: Mapping[str, Config], work_dir: Path, data_dir: str, jobs: int
) -> Iterator[tuple[str, str | None]]:
    """Name of each training as it ends, and what went wrong."""
    work = [(n, c.to_json(), str(work_dir / n), data_dir) for n, c in configs.items()]
    if jobs == 1:
        yield from (_train(*each) for each in work)
        return
    # New processes, as TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = [pool.submit(_train, *each) for each in work]
        # kill would leave the processes at work on what is left; like Ctrl-C, this does not.
        previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()  # at which a training saves and stops
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)


def read_training(folder: Path) -> Training:
    """Read what a finished training left in its folder."""
    from supervised_reptile.curve import read_curve

    record = json.loads((folder / "results.json").read_text())
    return Training(record, read_curve(folder / "curve.csv"))


def _is_finished(folder: Path, config: Config) -> bool:
    record = folder / "results.json"
    return record.exists() and Config.from_dict(json.loads(record.read_text())["config"]) == config


def _train(name: str, config: str, folder: str, data_dir: str) -> tuple[str, str | None]:
    """One training; returns its name and what went wrong."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with (
        (Path(folder) / "run.log").open("a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        import_tensorflow()
        from supervised_reptile.run import run

        options = RunOptions(
            checkpoint=folder,
            data_dir=data_dir,
            intra_op_threads=1,
            inter_op_threads=1,
            progress=False,
            checkpoint_interval=500,
        )
        try:
            run(Config.from_json(config), options)
        except UserError as error:
            return name, str(error)
        except Exception as error:
            traceback.print_exc()
            return name, f"{error!r}; see {folder}/run.log"
    return name, None
