"""The meta-learners: in what direction a task moves the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from supervised_reptile.config import Config
from supervised_reptile.meta_learner import MetaLearner, paper_adam

__all__ = ["FOMAML", "MAML", "MetaLearner", "Reptile", "learner_from_config", "paper_adam"]


class Reptile(MetaLearner):
    r"""Reptile: d = φ̃ − φ, the whole way travelled by the inner loop (paper, Algorithm 2).

    With ``step_weights`` it takes any linear combination of the inner steps' changes instead.
    With inner SGD these are −α·g_1 … −α·g_k, so that (1, 1) stands for g1+g2, (0, 0, 1) for g3
    and (0.5, 0.5) for ½(g1+g2) of the paper's Sec. 6.2; Reptile itself is all ones.

    Args:
        model: As for :class:`MetaLearner`.
        step_weights: w_1 … w_k, as many as inner steps. Default: ones, however many steps.
        **options: As for :class:`MetaLearner`.

    Raises:
        ValueError: ``step_weights`` is empty, or see :class:`MetaLearner`.
    """

    def __init__(
        self, model: keras.Model, *, step_weights: Sequence[float] | None = None, **options: Any
    ) -> None:
        super().__init__(model, **options)
        self._step_weights = None if step_weights is None else tuple(map(float, step_weights))
        if self._step_weights == ():
            raise ValueError("step_weights must have a weight for each inner step. Received: none")

    def step_weights(self, steps: int) -> Sequence[float]:
        """One for each step, or what was given."""
        if self._step_weights is None:
            return [1.0] * steps
        if len(self._step_weights) != steps:
            raise ValueError(
                f"step_weights must have a weight for each of the {steps} inner steps. "
                f"Received: {self._step_weights}"
            )
        return self._step_weights


class FOMAML(MetaLearner):
    r"""First-order MAML: d = the last inner step's change of the weights alone (paper, Sec. 3).

    As in the authors' program this is the change *after* the optimizer (and the weight decay of
    that step), not the raw gradient, times ε and averaged over the meta-batch. Whether the last
    mini-batch is drawn like the others (shared tail) or from examples set aside (separate tail,
    Sec. 6.3) is a matter of how the tasks are drawn.
    """

    def step_weights(self, steps: int) -> Sequence[float]:
        """0, …, 0, 1."""
        return _last_step_alone(steps)


class MAML(MetaLearner):
    r"""MAML: the gradient of the query loss *through* the inner steps (Finn et al., 2017).

    Of a task's k mini-batches the first k − 1 are the support set, on which plain SGD steps are
    taken, and the last is the query set, drawn like FOMAML's last mini-batch (shared or separate
    tail, paper Sec. 6.3):

    .. math::
        \tilde\phi_j = \tilde\phi_{j-1} - \alpha \nabla L_j(\tilde\phi_{j-1}), \; j < k, \qquad
        d = -\alpha \, \nabla_\phi L_k(\tilde\phi_{k-1}(\phi))

    FOMAML takes the same gradient with respect to φ̃_{k−1} in place of φ. The factor α keeps ε of
    one meaning for all learners; with an ``outer_optimizer`` it is divided out again, and that
    optimizer is handed the meta-gradient itself. Evaluation fine-tunes as all learners do.

    Memory: the activations of all k steps of a task at once.

    Raises:
        ValueError: The inner optimizer is not plain SGD (momentum, clipping, Keras' own weight
            decay … included), ``weight_decay`` is not 1, or see :class:`MetaLearner`.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        inner_optimizer: keras.optimizers.Optimizer | None = None,
        **options: Any,
    ) -> None:
        optimizer = inner_optimizer or keras.optimizers.SGD()
        super().__init__(model, inner_optimizer=optimizer, **options)
        if (
            type(optimizer) is not keras.optimizers.SGD
            or not self._inner.fast_weights.uses_fused_update
        ):
            raise ValueError(
                "MAML differentiates through plain SGD steps only. "
                f"Received: inner_optimizer={optimizer.get_config()}"
            )
        if options.get("weight_decay", 1.0) != 1.0:
            raise ValueError(
                f"MAML has no weight_decay. Received: weight_decay={options['weight_decay']}"
            )

        self._twice_differentiable = self._inner.twice_differentiable()

    def step_weights(self, steps: int) -> Sequence[float]:
        """0, …, 0, 1: the last step is the query's."""
        if steps < 2:
            raise ValueError(
                "MAML needs a mini-batch to adapt to and one to query, so at least 2 inner steps. "
                f"Received: {steps}"
            )
        return _last_step_alone(steps)

    def _direction(self, start, examples, parts, runs):
        (rows, labels), (query_rows, query_labels) = parts
        (steps, _), _ = runs
        alpha = tf.convert_to_tensor(self.inner_optimizer.learning_rate)
        inner = self._twice_differentiable
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(start)
            weights, losses = start, []
            for k in range(steps):
                loss, gradients = inner.loss_and_gradients(weights, examples, rows[k], labels[k])
                weights = [w - alpha * g for w, g in zip(weights, gradients, strict=True)]
                losses.append(loss)
            query_loss = inner.loss(weights, examples, query_rows[0], query_labels[0])
        gradients = tape.gradient(
            query_loss, start, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return sum(losses, query_loss), [-alpha * g for g in gradients]


def _last_step_alone(steps: int) -> list[float]:
    return [0.0] * (steps - 1) + [1.0]


def learner_from_config(
    config: Config, model: keras.Model, *, input_scale: float = 1.0, lanes: int = 2
) -> MetaLearner:
    """The learner that a configuration describes.

    Args:
        config: Supplies algorithm, step_weights, inner_optimizer with its constants,
            reset_optimizer, weight_decay and outer_optimizer.
        model: Keras model, as for :class:`MetaLearner`.
        input_scale: Factor from stored examples to the model's input.
        lanes: How many evaluation tasks run side by side.
    """
    inner, outer = config.inner, config.meta.outer_optimizer
    constants = {
        "adam": {"beta_1": inner.beta_1, "beta_2": inner.beta_2, "epsilon": inner.epsilon},
        "rmsprop": {"rho": inner.rho, "momentum": inner.momentum, "epsilon": inner.epsilon},
        "sgd": {"momentum": inner.momentum},
    }[inner.inner_optimizer]
    algorithm = config.meta.algorithm
    kind = {"reptile": Reptile, "fomaml": FOMAML, "maml": MAML}[algorithm]
    more = {"step_weights": config.meta.step_weights} if algorithm == "reptile" else {}
    return kind(
        model,
        inner_optimizer=_optimizer(
            inner.inner_optimizer, learning_rate=inner.learning_rate, **constants
        ),
        outer_optimizer=None if outer == "interpolation" else _optimizer(outer),
        weight_decay=inner.weight_decay,
        reset_optimizer=inner.reset_optimizer,
        input_scale=input_scale,
        lanes=lanes,
        **more,
    )


def _optimizer(name: str, **arguments: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.get({"class_name": name, "config": arguments})
