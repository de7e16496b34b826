"""The directory of a run: its configuration, its checkpoints, and one process at a time."""

from __future__ import annotations

import shutil
from pathlib import Path

import tensorflow as tf

from supervised_reptile.config import Config
from supervised_reptile.errors import ConfigError, RunError
from supervised_reptile.runs.files import write_whole

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

_CHECKPOINTS_KEPT = 3
# What TensorFlow raises for a damaged checkpoint, a truncated one included (IndexError).
_UNREADABLE = (tf.errors.OpError, AssertionError, IndexError, RuntimeError, ValueError)


class RunDirectory:
    """Keeps ``config.json`` and the newest checkpoints ``ckpt-<iteration>`` of a run.

    Args:
        path: The directory; it need not exist yet.
        checkpoint: What to save and restore.

    Raises:
        RunError: The directory's list of checkpoints cannot be read.
    """

    def __init__(self, path: Path, checkpoint: tf.train.Checkpoint) -> None:
        self.path = path
        self._checkpoint = checkpoint
        self._manager = self._new_manager()

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint; ``None`` if there is none."""
        newest = self._manager.latest_checkpoint
        return None if newest is None else Path(newest)

    @property
    def newest_iteration(self) -> int | None:
        """Iteration of the newest checkpoint; ``None`` if there is none."""
        return None if self.newest is None else int(self.newest.name.rpartition("-")[2])

    def make_ready(self, config: Config) -> None:
        """Make the directory, take it for this process, and write the configuration into it.

        Raises:
            RunError: It cannot be written, or another process is training there.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock()
            write_whole(self.path / "config.json", config.to_json() + "\n")
        except OSError as error:
            raise RunError(f"--checkpoint: cannot write {self.path}: {error}") from error

    def save(self, iteration: int) -> Path:
        """Save a checkpoint under the number of an iteration.

        Raises:
            RunError: Writing failed; older checkpoints are intact.
        """
        try:
            return Path(self._manager.save(checkpoint_number=iteration))
        except (tf.errors.OpError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise RunError(f"--checkpoint: cannot write {self.path}: {reason}") from error

    def lock(self) -> None:
        """Keep other processes from training here as long as this one lives.

        Raises:
            RunError: Another process is training there, or the directory cannot be written.
        """
        if fcntl is None or not self.path.exists():
            return
        try:
            self._lock_file = (self.path / ".lock").open("w")
            fcntl.lockf(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"--checkpoint: another process is training in {self.path}") from error
        except OSError as error:
            raise RunError(f"--checkpoint: cannot write {self.path}: {error}") from error

    def saved_config(self) -> Config | None:
        """Configuration of the checkpoints; ``None`` if there is no checkpoint.

        Raises:
            RunError: It cannot be read.
        """
        path = self.path / "config.json"
        if self.newest is None:
            return None
        if not path.exists():
            raise RunError(f"--checkpoint: {self.path} has checkpoints but no config.json")
        try:
            return Config.from_json(path.read_text())
        except ConfigError as error:
            raise RunError(f"--checkpoint: {path}: {error}") from error

    def restore(self, into: tf.train.Checkpoint | None = None, *, partly: bool = False) -> None:
        """Restore the newest checkpoint, of which there must be one.

        Args:
            into: Where to; the checkpoint given at the start by default.
            partly: Whether ``into`` may have no place for some of what is saved.

        Raises:
            RunError: It is damaged, or does not fit.
        """
        newest = self._manager.latest_checkpoint
        try:
            # Every tensor is read once before any variable is touched.
            reader = tf.train.load_checkpoint(newest)
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)
            status = (into or self._checkpoint).restore(newest)
            if partly:
                status.expect_partial().assert_existing_objects_matched()
            else:
                status.assert_consumed()
        except _UNREADABLE as error:
            reason = str(error).partition("\n")[0]
            older = [Path(path).name for path in self._manager.checkpoints if path != newest]
            raise RunError(
                f"--checkpoint: cannot read {newest}: {reason}."
                + (
                    f" To go back to {older[-1]}, make it the model_checkpoint_path in "
                    f"{self.path / 'checkpoint'}."
                    if older
                    else ""
                )
                + " To begin anew and keep what is there, use --noresume"
            ) from error

    def move_aside(self) -> None:
        """Set the directory aside under another name, so that a new run can begin."""
        number = 1
        while (aside := Path(f"{self.path}.previous-{number}")).exists():
            number += 1
        shutil.move(self.path, aside)
        print(f"--noresume: the run in {self.path} was moved to {aside}")
        self._manager = self._new_manager()

    def _new_manager(self) -> tf.train.CheckpointManager:
        """The manager of the directory's checkpoints, which are listed in its file "checkpoint".

        TensorFlow passes over a list that it cannot read, and the run would begin anew.
        """
        listed = self.path / "checkpoint"
        if listed.exists() and not _is_readable_list(self.path):
            raise RunError(
                f"--checkpoint: cannot read {listed}, the list of the checkpoints in that "
                "directory. Mend it, or use another directory"
            )
        return tf.train.CheckpointManager(
            self._checkpoint, str(self.path), max_to_keep=_CHECKPOINTS_KEPT
        )


def _is_readable_list(directory: Path) -> bool:
    try:
        return tf.train.get_checkpoint_state(str(directory)) is not None
    except ValueError:  # an empty one
        return False
