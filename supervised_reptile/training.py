"""The outer loop: meta-iterations with an annealed step size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.meta_learner import MetaLearner
from supervised_reptile.tasks import TaskSpec, random_stream, training_tasks


@dataclasses.dataclass(frozen=True)
class LinearDecay:
    """The outer step size of the paper: ε_i = (i/N)·final + (1 − i/N)·start.

    Attributes:
        start: ε of meta-iteration 0, at least 0.
        final: ε at the end of the run, at least 0.
        iterations: N, the number of meta-iterations, at least 1.
    """

    start: float
    final: float
    iterations: int

    def __call__(self, iteration: int) -> float:
        """Return ε of a meta-iteration, counted from 0."""
        if self.start == self.final:
            return self.start  # the same bits for any number of meta-iterations
        done = iteration / self.iterations
        return done * self.final + (1 - done) * self.start


def meta_train(
    learner: MetaLearner,
    dataset: FewShotDataset,
    spec: TaskSpec,
    *,
    iterations: Iterable[int],
    meta_batch: int = 5,
    meta_step: Callable[[int], float],
    seed: int = 0,
) -> Iterator[tuple[int, float, float]]:
    """Train, one meta-iteration after another.

    Each meta-iteration draws its tasks from its own random stream. Training may therefore stop
    after any of them and continue later with the same bits.

    Args:
        learner: The learner to train. It holds φ and the inner optimizer's state.
        dataset: Data set whose ``"train"`` split the tasks are drawn from.
        spec: Shape of a training task.
        iterations: The meta-iterations to run.
        meta_batch: n, number of tasks per meta-iteration, at least 1.
        meta_step: ε as a function of the meta-iteration, e.g. :class:`LinearDecay`.
        seed: Seed of the tasks, at least 0.

    Yields:
        The number of each meta-iteration, its ε, and its inner loss per example.
    """
    for i in iterations:
        tasks = training_tasks(random_stream(seed, "training", i), dataset, spec, meta_batch)
        epsilon = meta_step(i)
        loss = learner.train_step(dataset.images, tasks, epsilon)
        yield i, epsilon, float(loss)
