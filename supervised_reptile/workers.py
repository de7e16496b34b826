"""Processes that share the tasks of every meta-iteration and evaluation, over ``tf.distribute``.

Each process is a worker with the same program. It runs its share of a meta-batch from the same φ
and slots, and one sum over all workers completes the meta-iteration (paper, Eq. 5 and
SimuParallelSGD in Sec. 2). Worker 0 is the chief.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from supervised_reptile.errors import ConfigError, RunError
from supervised_reptile.tasks import TrainingTasks


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The position of this process in a cluster.

    Attributes:
        addresses: "host:port" of each worker; the first is the chief.
        number: Number of this worker, from 0.
        resolver: What tells TensorFlow the same.
    """

    addresses: tuple[str, ...]
    number: int
    resolver: tf.distribute.cluster_resolver.ClusterResolver


def cluster_from_environment() -> Cluster | None:
    """Find the cluster in ``TF_CONFIG``, or in the variables of a Slurm job step.

    Returns:
        The cluster; ``None`` for a single process.

    Raises:
        ConfigError: ``TF_CONFIG`` is not valid.
    """
    if os.environ.get("TF_CONFIG"):
        source = 'TF_CONFIG must be JSON like {"cluster": {"worker": ["host:port", ...]}, "task": '
        source += '{"type": "worker", "index": 0}}'
        find = tf.distribute.cluster_resolver.TFConfigClusterResolver
    elif os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        source, find = "Slurm's variables must describe a job step", _slurm_resolver
    else:
        return None
    try:
        resolver = find()
        jobs = resolver.cluster_spec().as_dict()
        chief, others = jobs.pop("chief", []), jobs.pop("worker", [])
        task, index = resolver.task_type or "worker", int(resolver.task_id or 0)
        if jobs or task not in ("chief", "worker") or len(chief) > 1:
            raise ValueError(f"jobs other than one chief and workers: {[*jobs] or task}")
        if not 0 <= index < len(chief if task == "chief" else others):
            raise ValueError(f"there is no {task} {index}")
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OSError) as error:
        raise ConfigError(f"{source}. Received: {os.environ.get('TF_CONFIG')} ({error})") from error
    addresses = (*chief, *others)
    if len(addresses) == 1:
        return None
    return Cluster(addresses, index + (len(chief) if task == "worker" else 0), resolver)


def _slurm_resolver() -> tf.distribute.cluster_resolver.ClusterResolver:
    """Return the cluster of a Slurm job step, one worker per task."""
    resolvers = tf.distribute.cluster_resolver
    # Slurm itself divides the GPUs among the tasks. TensorFlow's resolver would count them with a
    # program that machines without GPUs lack; given enough of them, it does not.
    slurm = resolvers.SlurmClusterResolver(gpus_per_node=10**6, gpus_per_task=1, auto_set_gpu=False)
    cluster = slurm.cluster_spec()  # finds the task, too
    task_type, task_id = slurm.get_task_info()
    return resolvers.SimpleClusterResolver(
        cluster, task_type=task_type, task_id=task_id, rpc_layer="grpc"
    )


class Workers:
    """The workers of a cluster, seen from one of them.

    Every method except :meth:`share_of` must be called by all workers, in the same order.

    Args:
        cluster: The position of this process. The constructor waits for all workers and must be
            called before TensorFlow's first operation.

    Attributes:
        count: Number of workers.
        number: Number of this one, from 0. The chief is 0.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.count, self.number = len(cluster.addresses), cluster.number
        self._addresses = cluster.addresses
        try:
            self._strategy = tf.distribute.MultiWorkerMirroredStrategy(
                cluster_resolver=cluster.resolver
            )
        except (tf.errors.OpError, RuntimeError) as error:
            address = cluster.addresses[cluster.number]
            reason = str(error).splitlines()[0][:160]
            raise RunError(f"worker {self.number} cannot serve on {address}: {reason}") from error
        self._compiled_sums = {
            kind: tf.function(self._sum, input_signature=[tf.TensorSpec([None], kind)])
            for kind in (tf.float32, tf.float64, tf.int32, tf.int64)
        }

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes the files and the output."""
        return self.number == 0

    def share_of(self, tasks: TrainingTasks) -> TrainingTasks:
        """Return this worker's tasks of a meta-batch: every ``count``-th one."""
        return tasks.map(lambda x: x[self.number :: self.count])

    def sum(self, values: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Add up values of all workers.

        Args:
            values: float32, float64, int32 or int64, of the same shape in all workers.

        Raises:
            RunError: Another worker has stopped.
        """
        try:
            values = tf.convert_to_tensor(values)
            total = self._compiled_sums[values.dtype](tf.reshape(values, [-1]))
            return tf.reshape(total, values.shape)
        except tf.errors.OpError as error:
            raise RunError(
                f"worker {self.number}: another worker has stopped or cannot be reached; see its "
                "output, then start all workers again with the same command, which resumes"
            ) from error

    def _sum(self, values: tf.Tensor) -> tf.Tensor:
        def reduced(x: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # TensorFlow does not reduce an argument directly.
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(x))

        return self._strategy.run(reduced, (values,))

    def gather(self, content: bytes) -> list[bytes]:
        """Return the bytes that each worker gives."""
        lengths = np.zeros(self.count, np.int64)
        lengths[self.number] = len(content)
        lengths = self.sum(lengths).numpy()
        rows = np.zeros((self.count, -(-max(*lengths, 1) // 4)), np.int32)  # whole numbers add up
        rows[self.number].view(np.uint8)[: len(content)] = np.frombuffer(content, np.uint8)
        rows = self.sum(rows).numpy()
        return [row.tobytes()[:length] for row, length in zip(rows, lengths, strict=True)]

    def from_chief(self, content: bytes = b"") -> bytes:
        """Return what the chief gives."""
        return self.gather(content if self.is_chief else b"")[0]

    def check_agreement(self, facts: Mapping[str, object]) -> None:
        """Check that all workers have the same flags, data and versions.

        Args:
            facts: Values that must be equal, with names for the message.

        Raises:
            RunError: A worker has others. All workers raise it.
        """
        found = [json.loads(each) for each in self.gather(json.dumps(facts).encode())]
        for number, theirs in enumerate(found):
            names = [n for n in {**found[0], **theirs} if found[0].get(n) != theirs.get(n)]
            if names:
                what = "; ".join(f"{n}: {found[0].get(n)} and {theirs.get(n)}" for n in names)
                raise RunError(
                    "all workers must have the same flags, data and versions. Received from "
                    f"worker 0 and worker {number} ({self._addresses[number]}): {what}"
                )

    def share_state(self, variables: Sequence[tf.Variable]) -> None:
        """Set variables to the chief's values, bit for bit."""
        values = [variable.numpy() for variable in variables]
        content = self.from_chief(b"".join(value.tobytes() for value in values))
        if self.is_chief:
            return
        for variable, value in zip(variables, values, strict=True):
            mine, content = content[: value.nbytes], content[value.nbytes :]
            variable.assign(np.frombuffer(mine, value.dtype).reshape(value.shape))
