"""Options of ``fit`` and ``evaluate`` that Keras' own functions lack."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from supervised_reptile.training import LinearDecay


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """Options of :func:`fit` that Keras' own ``fit`` lacks.

    The defaults are the paper's for 5-way Omniglot (Table 3).

    Attributes:
        meta_batch: n, tasks per meta-iteration, at least 1.
        inner_iters: k, inner steps per task, at least 1.
        inner_batch: Examples per mini-batch of an inner step, at least 1.
        meta_step: ε, the outer step size at the start; or a function of the number of the
            meta-iteration, such as a ``keras.optimizers.schedules.LearningRateSchedule``.
        meta_step_final: ε at the end of all epochs, reached linearly. ``None`` means the paper's 0
            and is required if ``meta_step`` is a function.
        eval_iters: Fine-tuning steps per validation task, at least 0.
        eval_batch: Examples per mini-batch of fine-tuning, at least 1.
        transductive: Whether the queries of a validation task pass through the network together,
            or each with the task's inputs (see ``MetaLearner.predict_tasks``).
        seed: Seed of the mini-batches and of the generator given to a task function, at least 0.

    Raises:
        ValueError: A value is out of range.
    """

    meta_batch: int = 5
    inner_iters: int = 5
    inner_batch: int = 10
    meta_step: float | Callable[[int], float] = 1.0
    meta_step_final: float | None = None
    eval_iters: int = 50
    eval_batch: int = 5
    transductive: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("meta_batch", "inner_iters", "inner_batch", "eval_batch"):
            check_at_least(1, **{name: getattr(self, name)})
        check_at_least(0, eval_iters=self.eval_iters, seed=self.seed)
        if callable(self.meta_step):
            if self.meta_step_final is not None:
                raise ValueError(
                    "meta_step_final must be None if meta_step is a function. "
                    f"Received: {self.meta_step_final}"
                )
        elif self.meta_step < 0 or (self.meta_step_final or 0) < 0:
            raise ValueError(
                "meta_step must be at least 0, at the end too. "
                f"Received: {self.meta_step} and {self.meta_step_final}"
            )

    def meta_step_over(self, iterations: int) -> Callable[[int], float]:
        """Return ε as a function of the meta-iteration, for a run of ``iterations``."""
        if callable(self.meta_step):
            step = self.meta_step
            return lambda i: float(step(i))
        return LinearDecay(self.meta_step, self.meta_step_final or 0.0, iterations)


def check_at_least(low: int, **values: int) -> None:
    """Raise ``ValueError`` if one of these arguments is too small."""
    for name, value in values.items():
        if value < low:
            raise ValueError(f"{name} must be at least {low}. Received: {value}")
