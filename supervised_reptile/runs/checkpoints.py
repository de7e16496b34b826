"""The directory of a run: its configuration, its checkpoints, and one process at a time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.config import RESUME_MAY_CHANGE, Config
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.errors import ConfigError, RunError, printable
from supervised_reptile.runs.data_identity import check_same_data, data_facts, identity_of
from supervised_reptile.runs.files import read_json, reason_of, write_whole, writing
from supervised_reptile.runs.lock import lock_directory

_CHECKPOINTS_KEPT = 3
# What TensorFlow raises for a damaged checkpoint, a truncated one included (IndexError).
_UNREADABLE = (tf.errors.OpError, AssertionError, IndexError, RuntimeError, ValueError)
_PARTS = ("data-00000-of-00001", "index")
_CHECKPOINT_FILE = re.compile(r"ckpt-(\d+)\.(?:index|data-\d+-of-\d+)")
_LISTED = re.compile(r'^(?:all_)?model_checkpoint_paths?: "(?:.*/)?ckpt-(\d+)"$', re.MULTILINE)
# What killed processes leave; TensorFlow's own names are those of version 0.1.
_LEFTOVER = re.compile(r"ckpt-\d+(?:\.part|_temp)|checkpoint\.tmp.*|.*\.json\.part|new\.keras")
_PATTERN = re.compile(r"[*?\[\\]")
_PRODUCTS = ("model.keras", "classifier.keras", "results.json")
_DATA = "data_set"
_DATA_KEY = f"{_DATA}/.ATTRIBUTES/VARIABLE_VALUE"


class RunDirectory:
    """Keep ``config.json`` and the newest checkpoints ``ckpt-<iteration>`` of a run.

    The checkpoint files themselves decide which checkpoints exist. The file ``checkpoint``, which
    lists them for TensorFlow's tools, may be missing; it only helps to distinguish a checkpoint
    whose saving was interrupted from one that was damaged later.

    Args:
        path: The directory; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO | None = None
        self._readable: dict[int, str] = {}  # fault of each checkpoint; "" for none

    # ------------------------------------------------------ existing runs

    @property
    def newest_iteration(self) -> int | None:
        """Iteration of the newest completely saved checkpoint; ``None`` if there is none."""
        numbers = sorted(self._numbers(), reverse=True)
        return next((n for n in numbers if not (self._fault(n) and self._was_interrupted(n))), None)

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint; ``None`` if there is none."""
        newest = self.newest_iteration
        return None if newest is None else self._prefix(newest)

    def saved_config(self) -> Config | None:
        """Configuration of the checkpoints; ``None`` if there is no checkpoint.

        Raises:
            RunError: The configuration cannot be read.
        """
        path = self.path / "config.json"
        if self.newest is None:
            return None
        if not path.exists():
            raise RunError(f"--checkpoint: {self.path} has checkpoints but no config.json")
        try:
            return Config.from_dict(read_json(path))
        except (RunError, ConfigError, TypeError, OverflowError) as error:
            raise RunError(f"--checkpoint: {path} is damaged: {error}") from error

    def check(self, config: Config) -> Config | None:
        """Check whether a run of a configuration may resume or start here.

        More meta-iterations than before extend the run if its outer step size is constant. With
        annealing, every step depends on their number, so it is a different run.

        Returns:
            The configuration of the run to resume; ``None`` for a new run.

        Raises:
            RunError: The directory contains another run, or files that would be lost.
        """
        saved = self.saved_config()
        if saved is None:
            products = [name for name in _PRODUCTS if (self.path / name).exists()]
            if products:
                raise RunError(
                    f"--checkpoint: {self.path} holds {products[0]} of a run, but no checkpoint. "
                    "Use another directory, or --noresume to move its files aside"
                )
            return None
        differences = saved.differences(config, ignore=RESUME_MAY_CHANGE)
        number_only = not saved.differences(config, ignore={*RESUME_MAY_CHANGE, "meta_iters"})
        if differences and number_only and saved.meta.meta_iters < config.meta.meta_iters:
            if config.meta.meta_step == config.meta.meta_step_final:
                return saved
            raise RunError(
                f"--checkpoint: {self.path} holds a run of {saved.meta.meta_iters} meta-iterations "
                f"whose step size goes from {config.meta.meta_step:g} to "
                f"{config.meta.meta_step_final:g} over them, so a run of "
                f"{config.meta.meta_iters} (--meta_iters) differs from the first step on. Only a "
                "run of constant step size (--meta_step equal to --meta_step_final) can be "
                "extended; train this one in another directory"
            )
        if differences:
            raise RunError(
                f"--checkpoint: {self.path} holds a run of another configuration "
                f"({'; '.join(differences)}). Use the same flags as before, another "
                "directory, or --noresume to move that run aside"
            )
        return saved

    def check_data(self, dataset: FewShotDataset, flag: str = "--checkpoint") -> None:
        """Refuse checkpoints of other data; print a note for version 0.1, which did not store it.

        Args:
            dataset: The current data.
            flag: Flag at the start of the message.

        Raises:
            RunError: The checkpoints are of other data.
        """
        newest = self.newest_iteration
        if newest is None:
            return
        try:
            with self._path_for_tensorflow(newest) as path:
                reader = tf.train.load_checkpoint(path)
            has_it = reader.has_tensor(_DATA_KEY)
            saved = reader.get_tensor(_DATA_KEY).tobytes().decode() if has_it else ""
        except _UNREADABLE:
            return  # `restore` says so
        check_same_data(saved, dataset, f"the run in {self.path}", flag)

    # ------------------------------------------------------ locking

    def lock(self) -> None:
        """Prevent other processes from training here while this one runs.

        Raises:
            RunError: Another process is training there, or the directory cannot be written.
        """
        if self._lock is None and self.path.exists():
            self._lock = lock_directory(self.path)

    def make_ready(self, config: Config, dataset: FewShotDataset) -> None:
        """Create and lock the directory, and write the configuration and the data's identity.

        Raises:
            RunError: The directory cannot be written, or another process is training there.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = reason_of(error)
            raise RunError(f"--checkpoint: cannot write {self.path}: {reason}") from error
        self.lock()
        self._remove_leftovers()
        write_whole(self.path / "config.json", config.to_json() + "\n")
        about = {"dataset": dataset.name} | data_facts(dataset)
        write_whole(self.path / "data.json", json.dumps(about, indent=2) + "\n")

    def move_aside(self) -> None:
        """Rename the directory of an earlier run, so a new run can start."""
        names = {*_PRODUCTS, "config.json"}
        if not self._numbers() and not any((self.path / name).exists() for name in names):
            return
        number = 1
        while (aside := Path(f"{self.path}.previous-{number}")).exists():
            number += 1
        with writing(aside, shutil.Error):
            shutil.move(self.path, aside)
        self._lock = None
        self._readable.clear()
        print(f"--noresume: the run in {printable(self.path)} was moved to {printable(aside)}")

    def _remove_leftovers(self) -> None:
        interrupted = [n for n in self._numbers() if self._fault(n) and self._was_interrupted(n)]
        for number in interrupted:
            self._remove(number)
        for path in [p for p in self.path.iterdir() if _LEFTOVER.fullmatch(p.name)]:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    # ------------------------------------------------------ saving and restoring

    def save(
        self, checkpoint: tf.train.Checkpoint, iteration: int, dataset: FewShotDataset
    ) -> Path:
        """Save a checkpoint of an iteration; only the three newest are kept.

        Its files are written to another folder and moved when they are complete.

        Args:
            checkpoint: The checkpoint to save.
            iteration: Number of the iteration.
            dataset: The data, whose fingerprint is also saved.

        Raises:
            RunError: Writing failed. Older checkpoints are intact.
        """
        if not hasattr(checkpoint, _DATA):
            setattr(checkpoint, _DATA, _bytes_variable(identity_of(dataset)))
        checkpoint.save_counter.assign_add(1)
        prefix = self._prefix(iteration)
        part = self.path / f"{prefix.name}.part"
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            checkpoint.write(str(part / prefix.name))
            for name in (f"{prefix.name}.{kind}" for kind in _PARTS):
                _to_disk(part / name)
                (part / name).replace(self.path / name)
            _to_disk(self.path)
            part.rmdir()
            self._readable[iteration] = ""
            self._list()
            for number in sorted(self._numbers())[:-_CHECKPOINTS_KEPT]:
                self._remove(number)
        except (*_UNREADABLE, OSError) as error:
            reason = reason_of(error)
            raise RunError(f"--checkpoint: cannot write {self.path}: {reason}") from error
        return prefix

    def restore(self, checkpoint: tf.train.Checkpoint, *, partly: bool = False) -> None:
        """Restore the newest checkpoint; there must be one.

        Args:
            checkpoint: The objects to restore.
            partly: Whether saved values without a matching object are allowed.

        Raises:
            RunError: It is damaged, or does not fit; or there is none.
        """
        newest = self.newest_iteration
        if newest is None:
            raise RunError(f"--checkpoint: there is no checkpoint in {self.path}")
        prefix = self._prefix(newest)
        try:
            # Read every tensor once before changing any variable.
            if self._fault(newest):
                raise ValueError(self._fault(newest))
            with self._path_for_tensorflow(newest) as path:
                if not partly and tf.train.load_checkpoint(path).has_tensor(_DATA_KEY):
                    setattr(checkpoint, _DATA, _bytes_variable(""))
                status = checkpoint.restore(path)
            if partly:
                status.expect_partial().assert_existing_objects_matched()
            else:
                status.assert_consumed()
        except _UNREADABLE as error:
            older = [n for n in self._numbers() if n < newest and not self._fault(n)]
            raise RunError(
                f"--checkpoint: cannot read {prefix}: {reason_of(error)}."
                + (f" To go back to ckpt-{max(older)}, delete ckpt-{newest}.*." if older else "")
                + " To start again and keep the old files, use --noresume"
            ) from error

    def _prefix(self, iteration: int) -> Path:
        return self.path / f"ckpt-{iteration}"

    def _numbers(self) -> set[int]:
        """Return the iterations with a checkpoint or a part of one."""
        try:
            names = [path.name for path in self.path.iterdir()] if self.path.is_dir() else []
        except OSError as error:
            reason = reason_of(error)
            raise RunError(f"--checkpoint: cannot read {self.path}: {reason}") from error
        found = map(_CHECKPOINT_FILE.fullmatch, names)
        return {int(match[1]) for match in found if match}

    def _fault(self, number: int) -> str:
        """Read a whole checkpoint and return what is wrong with it; "" if nothing is."""
        if number not in self._readable:
            self._readable[number] = ""
            try:
                with self._path_for_tensorflow(number) as path:
                    reader = tf.train.load_checkpoint(path)
                    for name in reader.get_variable_to_shape_map():
                        reader.get_tensor(name)
            except _UNREADABLE as error:
                self._readable[number] = reason_of(error)
        return self._readable[number]

    @contextlib.contextmanager
    def _path_for_tensorflow(self, number: int) -> Iterator[str]:
        """Yield a path for TensorFlow's readers, which treat some names as patterns."""
        prefix = self._prefix(number)
        if not _PATTERN.search(str(prefix)):
            yield str(prefix)
            return
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / "run"
            link.symlink_to(self.path.resolve(), target_is_directory=True)
            yield str(link / prefix.name)

    def _was_interrupted(self, number: int) -> bool:
        """Whether a process was killed while it saved a checkpoint."""
        name = self._prefix(number).name
        if any((self.path / f"{name}{end}").is_dir() for end in (".part", "_temp")):
            return True
        try:
            listed = _LISTED.findall((self.path / "checkpoint").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return False
        return bool(listed) and str(number) not in listed

    def _list(self) -> None:
        """Write the list of checkpoints that ``tf.train.latest_checkpoint`` reads."""
        kept = sorted(self._numbers())[-_CHECKPOINTS_KEPT:]
        lines = [f'model_checkpoint_path: "ckpt-{kept[-1]}"']
        lines += [f'all_model_checkpoint_paths: "ckpt-{number}"' for number in kept]
        write_whole(self.path / "checkpoint", "\n".join(lines) + "\n")

    def _remove(self, number: int) -> None:
        for kind in reversed(_PARTS):  # without an index, the data are not a checkpoint
            Path(f"{self._prefix(number)}.{kind}").unlink(missing_ok=True)
        self._readable.pop(number, None)


def save_model(model: keras.Model, path: Path) -> None:
    """Write a ``.keras`` file so that a killed process leaves either the old or the new one.

    Raises:
        RunError: The file cannot be written. The old one is intact.
    """
    new = path.with_name("new.keras")
    with writing(path, ValueError):  # from Keras, if the file system failed
        model.save(new)
        _to_disk(new)
        new.replace(path)


def _bytes_variable(text: str) -> tf.Variable:
    """Return a variable that holds text of any length as uint8, for a checkpoint of numbers."""
    values = np.frombuffer(text.encode(), np.uint8)
    return tf.Variable(values, shape=[None], trainable=False)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
