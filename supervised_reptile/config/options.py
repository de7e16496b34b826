"""Where and how a run is carried out: nothing that changes what it computes."""

import os
from dataclasses import dataclass, field

from supervised_reptile.config.locations import default_data_dir
from supervised_reptile.config.paper import dataset_facts
from supervised_reptile.config.rules import Checked


@dataclass(frozen=True)
class RunOptions(Checked):
    """Where and how a run is carried out.

    None of it changes the result, but that other numbers of threads round differently.

    Args:
        checkpoint: str, directory of checkpoints, learning curves and the run's record.
        pretrained: bool, whether to evaluate the checkpoint without training.
        resume: bool, whether to go on from a checkpoint of the same configuration, if there is
            one, rather than start anew.
        data_dir: str, directory of the data sets, or for "folder:NAME" that folder itself; the
            environment variable SUPERVISED_REPTILE_DATA changes the default.
        checkpoint_interval: int, outer updates between checkpoints, at least 1.
        eval_tasks_per_batch: int, evaluation tasks in one call of the compiled program, at
            least 1.
        intra_op_threads: int or None, threads inside one TensorFlow operation, at least 0 (0: one
            for each core). None: what is fastest for the data set's network.
        inter_op_threads: int or None, TensorFlow operations run at once, likewise.
        progress: bool, whether to show a progress bar.
        pretraining_dir: str, directory of the classifier that a run with `pretrain` starts from,
            which several runs may share; empty: the directory "pretraining" in `checkpoint`.

    Raises:
        ConfigError: If a value is out of range.
    """

    checkpoint: str = "model_checkpoint"
    pretrained: bool = False
    resume: bool = True
    data_dir: str = field(default_factory=default_data_dir)
    checkpoint_interval: int = 100
    eval_tasks_per_batch: int = 32
    intra_op_threads: int | None = None
    inter_op_threads: int | None = None
    progress: bool = True
    pretraining_dir: str = ""

    def threads(self, dataset: str) -> tuple[int, int]:
        """Returns the numbers of intra-op and inter-op threads for a data set, each at least 1."""
        intra, inter = dataset_facts(dataset).threads
        chosen = (
            intra if self.intra_op_threads is None else self.intra_op_threads,
            inter if self.inter_op_threads is None else self.inter_op_threads,
        )
        cores = os.cpu_count() or 1
        return chosen[0] or cores, chosen[1] or cores

    def lanes(self, dataset: str) -> int:
        """Returns how many evaluation tasks run side by side: one per inter-op thread, up to 8.

        Each is a part of the compiled graph of its own, so that many would take long to trace.
        """
        return min(self.threads(dataset)[1], 8)
