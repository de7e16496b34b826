"""The algorithms: in which direction one task moves the weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from supervised_reptile.keras_api.arguments import LossLike, OptimizerLike
from supervised_reptile.meta_learner import MetaLearner, Weights, minus
from supervised_reptile.tasks import MiniBatches, TrainingTasks

__all__ = ["FOMAML", "MAML", "GradientCombination", "MetaLearner", "Reptile"]


class Reptile(MetaLearner):
    r"""Reptile: the whole way that the inner loop travels (paper, Algorithm 2).

    .. math:: d = \tilde\phi_k - \phi

    See :class:`MetaLearner` for the arguments.

    Example:
        >>> learner = Reptile(omniglot_model(5))
        >>> learner.train_step(dataset.images, tasks, meta_step=1.0)
    """

    def direction(
        self, phi: Weights, examples: tf.Tensor, task: TrainingTasks
    ) -> tuple[Weights, tf.Tensor]:
        """φ̃_k − φ."""
        self.inner_loop.start_from(phi)
        loss = sum(self.inner_loop.run(examples, batches) for batches in task.parts)
        return minus(self.inner_loop.weights(), phi), loss


class FOMAML(MetaLearner):
    r"""First-order MAML: the last inner step's change of the weights alone (paper, Sec. 3).

    .. math:: d = \tilde\phi_k - \tilde\phi_{k-1}

    As in the authors' program this is the change *after* the optimizer and that step's weight
    decay, not the raw gradient. Whether the last mini-batch is dealt like the others (shared tail)
    or set aside (separate tail, Sec. 6.3) depends on how the tasks are drawn.

    See :class:`MetaLearner` for the arguments.
    """

    def direction(
        self, phi: Weights, examples: tf.Tensor, task: TrainingTasks
    ) -> tuple[Weights, tf.Tensor]:
        """φ̃_k − φ̃_{k−1}."""
        first, last = task.first_and_last()
        self.inner_loop.start_from(phi)
        loss = self.inner_loop.run(examples, first)
        before = self.inner_loop.weights()
        loss += self.inner_loop.run(examples, last)
        return minus(self.inner_loop.weights(), before), loss


class MAML(MetaLearner):
    r"""MAML: the gradient of the query loss *through* the inner steps (Finn et al., 2017).

    The first k − 1 mini-batches of a task are the support set, on which plain SGD steps are taken.
    The last one is the query set, drawn like FOMAML's last mini-batch (shared or separate tail):

    .. math::
        \tilde\phi_j = \tilde\phi_{j-1} - \alpha \nabla L_j(\tilde\phi_{j-1}), \; j < k, \qquad
        d = -\alpha \, \nabla_\phi L_k(\tilde\phi_{k-1}(\phi))

    FOMAML takes the same gradient with respect to φ̃_{k−1} instead of φ. The factor α gives ε one
    meaning for all learners; with an ``outer_optimizer`` it is divided out again, and that
    optimizer receives the meta-gradient itself. Evaluation fine-tunes as for all learners.

    Memory: the activations of all k steps of a task at once.

    See :class:`MetaLearner` for the arguments; ``inner_optimizer`` defaults to
    ``keras.optimizers.SGD()``.

    Raises:
        ValueError: The inner optimizer is not plain SGD (momentum, clipping, Keras' own weight
            decay … included), ``weight_decay`` is not 1, or see :class:`MetaLearner`.
    """

    relaxes_shapes = False  # the unrolled steps need a static number of mini-batches

    @staticmethod
    def default_inner_optimizer() -> keras.optimizers.Optimizer:
        """Plain SGD."""
        return keras.optimizers.SGD()

    def check(self, weight_decay: float) -> None:
        """Only plain SGD steps are differentiated through."""
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
        """At least one support and one query mini-batch."""
        if steps < 2:
            raise ValueError(
                "MAML needs a mini-batch to adapt to and one to query, so at least 2 inner steps. "
                f"Received: {steps}"
            )

    def direction(
        self, phi: Weights, examples: tf.Tensor, task: TrainingTasks
    ) -> tuple[Weights, tf.Tensor]:
        """−α ∇_φ L_k(φ̃_{k−1}(φ))."""
        support, query = task.first_and_last()
        alpha = tf.convert_to_tensor(self.inner_optimizer.learning_rate)
        inner, losses = self.inner_loop.twice_differentiable(), []
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

    With inner SGD the changes are −α·g_1 … −α·g_k, so (1, 1) stands for the paper's g1+g2,
    (0, 0, 1) for g3 and (0.5, 0.5) for ½(g1+g2).

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
            jit_compile=jit_compile,
        )
        self._step_weights = tuple(map(float, step_weights))
        if not self._step_weights:
            raise ValueError("step_weights must have a weight for each inner step. Received: none")

    def check_steps(self, steps: int) -> None:
        """One weight per step."""
        if len(self._step_weights) != steps:
            raise ValueError(
                f"step_weights must have a weight for each of the {steps} inner steps. "
                f"Received: {self._step_weights}"
            )

    def direction(
        self, phi: Weights, examples: tf.Tensor, task: TrainingTasks
    ) -> tuple[Weights, tf.Tensor]:
        """Σ_j w_j (φ̃_j − φ̃_{j−1})."""
        self.inner_loop.start_from(phi)
        total, losses, before = [tf.zeros_like(p) for p in phi], [], phi
        for weight, batches in self._runs(task):
            losses.append(self.inner_loop.run(examples, batches))
            after = self.inner_loop.weights()
            changes = zip(total, after, before, strict=True)
            total = [t + weight * (a - b) for t, a, b in changes] if weight else total
            before = after
        return total, sum(losses)

    def _runs(self, task: TrainingTasks) -> Iterator[tuple[float, MiniBatches]]:
        """The steps in runs of equal weight, each of whose changes telescopes to one difference."""
        weights = iter(self._step_weights)
        for part in task.parts:
            mine, first = itertools.islice(weights, part.indices.shape[0]), 0
            for weight, run in itertools.groupby(mine):
                steps = slice(first, first + len(list(run)))
                yield weight, part.map(lambda x, steps=steps: x[steps])
                first = steps.stop
