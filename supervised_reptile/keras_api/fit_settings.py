"""Options of ``fit`` and ``evaluate`` that Keras' own functions lack."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from supervised_reptile.keras_api.arguments import check_integers, check_numbers, check_switches
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
            check_integers(1, **{name: getattr(self, name)})
        check_integers(0, eval_iters=self.eval_iters, seed=self.seed)
        check_switches(transductive=self.transductive)
        if callable(self.meta_step):
            if self.meta_step_final is not None:
                raise ValueError(
                    "meta_step_final must be None if meta_step is a function. "
                    f"Received: {self.meta_step_final}"
                )
            return
        steps = {"meta_step": self.meta_step, "meta_step_final": self.meta_step_final or 0}
        check_numbers("at least 0", lambda step: step >= 0, **steps)

    def meta_step_over(self, iterations: int) -> Callable[[int], float]:
        """Return ε as a function of the meta-iteration, for a run of ``iterations``."""
        if callable(self.meta_step):
            step = self.meta_step
            return lambda i: float(step(i))
        return LinearDecay(self.meta_step, self.meta_step_final or 0.0, iterations)


def settings_of(given: FitSettings | None) -> FitSettings:
    """Return the given settings, or by default the paper's.

    Raises:
        ValueError: ``given`` is something else.
    """
    if given is not None and not isinstance(given, FitSettings):
        raise ValueError(f"settings must be a supervised_reptile.FitSettings. Received: {given!r}")
    return given or FitSettings()
