"""The algorithms: the direction in which one task moves the weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from supervised_reptile.inner_loop import InnerLoop
from supervised_reptile.keras_api.arguments import LossLike, OptimizerLike, check_numbers
from supervised_reptile.meta_learner import MetaLearner, Weights, minus
from supervised_reptile.tasks import MiniBatches, TrainingTasks

if TYPE_CHECKING:
    from supervised_reptile.workers import Workers

__all__ = ["FOMAML", "MAML", "GradientCombination", "MetaLearner", "Reptile"]


class Reptile(MetaLearner):
    r"""Reptile: the total change of the weights in the inner loop (paper, Algorithm 2).

    .. math:: d = \tilde\phi_k - \phi

    See :class:`MetaLearner` for the arguments.

    Example:
        >>> learner = Reptile(omniglot_model(5))
        >>> learner.train_step(dataset.images, tasks, meta_step=1.0)
    """

    def direction(
        self, inner: InnerLoop, phi: Weights, examples: tf.Tensor, task: TrainingTasks
    ) -> tuple[Weights, tf.Tensor]:
        """φ̃_k − φ."""
        inner.start_from(phi)
        loss = sum(inner.run(examples, batches) for batches in task.parts)
        return minus(inner.weights(), phi), loss


class FOMAML(MetaLearner):
    r"""First-order MAML: the change of the weights in the last inner step (paper, Sec. 3).

    .. math:: d = \tilde\phi_k - \tilde\phi_{k-1}

    As in the authors' program, this is the change *after* the optimizer and that step's weight
    decay, not the raw gradient. How the tasks are drawn decides whether the last mini-batch comes
    from the same examples as the others (shared tail) or is held out (separate tail, Sec. 6.3).

    See :class:`MetaLearner` for the arguments.
    """

    def direction(
        self, inner: InnerLoop, phi: Weights, examples: tf.Tensor, task: TrainingTasks
    ) -> tuple[Weights, tf.Tensor]:
        """φ̃_k − φ̃_{k−1}."""
        first, last = task.first_and_last()
        inner.start_from(phi)
        loss = inner.run(examples, first)
        before = inner.weights()
        loss += inner.run(examples, last)
        return minus(inner.weights(), before), loss


class MAML(MetaLearner):
    r"""MAML: the gradient of the query loss *through* the inner steps (Finn et al., 2017).

    Plain SGD takes one step on each of the first k − 1 mini-batches of a task, the support set.
    The last mini-batch is the query set, drawn as in FOMAML (shared or separate tail):

    .. math::
        \tilde\phi_j = \tilde\phi_{j-1} - \alpha \nabla L_j(\tilde\phi_{j-1}), \; j < k, \qquad
        d = -\alpha \, \nabla_\phi L_k(\tilde\phi_{k-1}(\phi))

    FOMAML takes the same gradient with respect to φ̃_{k−1} instead of φ. The factor α gives ε the
    same meaning for all learners. With an ``outer_optimizer``, it is divided out again and that
    optimizer receives the meta-gradient itself. Evaluation fine-tunes as for all learners.

    MAML keeps the activations of all k steps of a task in memory at the same time.

    See :class:`MetaLearner` for the arguments; ``inner_optimizer`` defaults to
    ``keras.optimizers.SGD()``.

    Raises:
        ValueError: The inner optimizer is not plain SGD (without momentum, clipping or Keras' own
            weight decay), ``weight_decay`` is not 1, or see :class:`MetaLearner`.
    """

    relaxes_shapes = False  # the unrolled steps need a static number of mini-batches

    @staticmethod
    def default_inner_optimizer() -> keras.optimizers.Optimizer:
        """Return plain SGD."""
        return keras.optimizers.SGD()

    def check(self, weight_decay: float) -> None:
        """Check that the inner optimizer is plain SGD, without weight decay."""
        optimizer = self.inner_optimizer
        if (
            type(optimizer) is not keras.optimizers.SGD
            or not self.inner_loop.fast_weights.uses_fused_update
        ):
            raise ValueError(
                "MAML differentiates through plain SGD steps only. "
                f"Received: inner_optimizer={optimizer.get_config()}"
            )
        if weight_decay != 1.0:
            raise ValueError(f"MAML has no weight_decay. Received: weight_decay={weight_decay}")

    def check_steps(self, steps: int) -> None:
        """Check that there is at least one support and one query mini-batch."""
        if steps < 2:
            raise ValueError(
                "MAML needs a support and a query mini-batch, so at least 2 inner steps. "
                f"Received: {steps}"
            )

    def direction(
        self, inner: InnerLoop, phi: Weights, examples: tf.Tensor, task: TrainingTasks
    ) -> tuple[Weights, tf.Tensor]:
        """−α ∇_φ L_k(φ̃_{k−1}(φ))."""
        support, query = task.first_and_last()
        alpha = tf.convert_to_tensor(self.inner_optimizer.learning_rate)
        inner, losses = inner.twice_differentiable(), []
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(phi)
            weights = phi
            for j in range(support.indices.shape[0]):
                rows, labels = support.indices[j], support.labels[j]
                loss, gradients = inner.loss_and_gradients(weights, examples, rows, labels)
                weights = [w - alpha * g for w, g in zip(weights, gradients, strict=True)]
                losses.append(loss)
            query_loss = inner.loss(weights, examples, query.indices[0], query.labels[0])
        gradients = tape.gradient(
            query_loss, phi, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return [-alpha * g for g in gradients], sum(losses, query_loss)


class GradientCombination(MetaLearner):
    r"""Any linear combination of the inner steps' changes (paper, Sec. 6.2).

    .. math:: d = \sum_{j=1}^{k} w_j \, (\tilde\phi_j - \tilde\phi_{j-1})

    With inner SGD the changes are −α·g_1 … −α·g_k. The paper's g1+g2 is therefore (1, 1), g3 is
    (0, 0, 1) and ½(g1+g2) is (0.5, 0.5).

    Args:
        model: As for :class:`MetaLearner`, like all further arguments.
        step_weights: w_1 … w_k, one for each inner step.

    Raises:
        ValueError: ``step_weights`` is empty, or see :class:`MetaLearner`.
    """

    def __init__(
        self,
        model: keras.Model,
        step_weights: Sequence[float],
        *,
        inner_optimizer: OptimizerLike | None = None,
        loss: LossLike | None = None,
        outer_optimizer: OptimizerLike | None = None,
        weight_decay: float = 1.0,
        reset_optimizer: bool = False,
        input_scale: float = 1.0,
        lanes: int = 2,
        parallel_tasks: int = 1,
        workers: Workers | None = None,
        jit_compile: bool = False,
    ) -> None:
        super().__init__(
            model,
            inner_optimizer=inner_optimizer,
            loss=loss,
            outer_optimizer=outer_optimizer,
            weight_decay=weight_decay,
            reset_optimizer=reset_optimizer,
            input_scale=input_scale,
            lanes=lanes,
            parallel_tasks=parallel_tasks,
            workers=workers,
            jit_compile=jit_compile,
        )
        weights = tuple(step_weights)
        for weight in weights:
            check_numbers("finite numbers", lambda weight: True, step_weights=weight)
        self._step_weights = tuple(map(float, weights))
        if not self._step_weights:
            raise ValueError("step_weights must have a weight for each inner step. Received: none")

    def check_steps(self, steps: int) -> None:
        """Check that there is one weight per step."""
        if len(self._step_weights) != steps:
            raise ValueError(
                f"step_weights must have a weight for each of the {steps} inner steps. "
                f"Received: {self._step_weights}"
            )

    def direction(
        self, inner: InnerLoop, phi: Weights, examples: tf.Tensor, task: TrainingTasks
    ) -> tuple[Weights, tf.Tensor]:
        """Σ_j w_j (φ̃_j − φ̃_{j−1})."""
        inner.start_from(phi)
        total, losses, before = [tf.zeros_like(p) for p in phi], [], phi
        for weight, batches in self._runs(task):
            losses.append(inner.run(examples, batches))
            after = inner.weights()
            changes = zip(total, after, before, strict=True)
            total = [t + weight * (a - b) for t, a, b in changes] if weight else total
            before = after
        return total, sum(losses)

    def _runs(self, task: TrainingTasks) -> Iterator[tuple[float, MiniBatches]]:
        """Yield runs of steps with equal weight; the changes of a run add up to one difference."""
        weights = iter(self._step_weights)
        for part in task.parts:
            mine, first = itertools.islice(weights, part.indices.shape[0]), 0
            for weight, run in itertools.groupby(mine):
                steps = slice(first, first + len(list(run)))
                yield weight, part.map(lambda x, steps=steps: x[steps])
                first = steps.stop
