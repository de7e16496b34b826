"""The inner loop: k optimizer steps on the mini-batches of one task, in one compiled graph."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import keras
import tensorflow as tf

from supervised_reptile.fast.network import fused_for_training
from supervised_reptile.fast.weights import FastWeights
from supervised_reptile.tasks import MiniBatches


class InnerLoop:
    r"""Runs inner steps φ̃ ← U(φ̃; mini-batch) on one task, and predicts with the result.

    One step is, as in the authors' program:

    .. math::
        \tilde\phi \leftarrow r\,\tilde\phi, \qquad
        g = \nabla_{\tilde\phi} \sum_{j \in \text{mini-batch}} L(f(x_j; \tilde\phi), y_j), \qquad
        \tilde\phi \leftarrow \text{optimizer}(\tilde\phi, g)

    The gradient is that of the **sum** of the losses over the mini-batch (when ``loss`` reduces
    by ``"sum"``, the default of the learners), not of the mean.

    Weights are "packed": a list of tensors in the layout of :class:`FastWeights`, one flat float32
    vector where the optimizer allows it.

    Args:
        model: Keras model whose architecture is run; its variables are never written here.
        loss: Keras loss; its reduction is honored.
        fast_weights: Holds φ̃ and the optimizer's state.
        weight_decay: r in (0, 1]; 1 means no decay.
        input_scale: Factor from stored examples (e.g. uint8) to the model's float32 input.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: keras.losses.Loss,
        fast_weights: FastWeights,
        *,
        weight_decay: float = 1.0,
        input_scale: float = 1.0,
    ) -> None:
        self._stock_model = model
        self._model = fused_for_training(model)
        self._loss = loss
        self._weight_decay = weight_decay
        self._input_scale = input_scale
        self.fast_weights = fast_weights

    def twin(self) -> InnerLoop:
        """The same loop on another working copy of the weights, to run next to this one."""
        other = copy.copy(self)
        other.fast_weights = self.fast_weights.twin()
        return other

    def twice_differentiable(self) -> InnerLoop:
        """The same loop in stock operations, whose gradients can be differentiated again.

        TensorFlow 2.21 silently gives wrong second derivatives of its fused batch normalization.
        """
        other = copy.copy(self)
        other._model = self._stock_model
        return other

    def start_from(self, phi: Sequence[tf.Tensor]) -> None:
        """φ̃ ← φ. The optimizer's slots and step count stay as they are.

        Args:
            phi: Packed weights.
        """
        self.fast_weights.load(phi)

    def weights(self) -> list[tf.Tensor]:
        """The current φ̃, packed."""
        return self.fast_weights.values()

    def run(self, examples: tf.Tensor, batches: MiniBatches) -> tf.Tensor:
        """Take one step for each mini-batch.

        Args:
            examples: All stored examples, [num_examples, ...].
            batches: Rows int32 [steps, batch] of ``examples`` and labels [steps, batch, ...].

        Returns:
            float32 scalar, the loss before each step, summed over the steps.
        """
        indices, labels = batches

        def step(k: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return k + 1, total + self._step(examples, indices[k], labels[k])

        if indices.shape[0] == 0:  # XLA would look into the loop all the same
            return tf.constant(0.0)
        # Steps are sequential: each one reads what the one before wrote.
        _, total = tf.while_loop(
            lambda k, _: k < tf.shape(indices)[0],
            step,
            (tf.constant(0), tf.constant(0.0)),
            parallel_iterations=1,
        )
        return total

    def _step(self, examples: tf.Tensor, rows: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        if self._weight_decay != 1.0:
            self.fast_weights.decay(self._weight_decay)
        loss, gradients = self.loss_and_gradients(self.weights(), examples, rows, labels)
        self.fast_weights.apply_gradients(gradients)
        return loss

    def loss(
        self, weights: Sequence[tf.Tensor], examples: tf.Tensor, rows: tf.Tensor, labels: tf.Tensor
    ) -> tf.Tensor:
        """Loss of one mini-batch at given weights, float32 scalar.

        Args:
            weights: Packed weights.
            examples: All stored examples, [num_examples, ...].
            rows: int32 [batch], rows of ``examples``.
            labels: What the loss compares with, [batch, ...].
        """
        return self._loss(labels, self._outputs(weights, self._inputs(examples, rows)))

    def loss_and_gradients(
        self, weights: Sequence[tf.Tensor], examples: tf.Tensor, rows: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The :meth:`loss` of one mini-batch, and its gradient with respect to the weights."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            loss = self.loss(weights, examples, rows, labels)
        # A weight without effect, see fused_for_training, has gradient 0 and still decays.
        return loss, tape.gradient(
            loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    def predict(self, examples: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Outputs of the network with the current φ̃ for one batch.

        Args:
            examples: All stored examples, [num_examples, ...].
            rows: int32 [batch], rows of ``examples``; they share their batch statistics.

        Returns:
            float32 [batch, outputs].
        """
        return self._outputs(self.weights(), self._inputs(examples, rows))

    def _inputs(self, examples: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        x = tf.cast(tf.gather(examples, rows), tf.float32)
        return x if self._input_scale == 1.0 else x * self._input_scale

    def _outputs(self, weights: Sequence[tf.Tensor], x: tf.Tensor) -> tf.Tensor:
        outputs, _ = self._model.stateless_call(
            self.fast_weights.unpack(weights), self._model.non_trainable_variables, x
        )
        return outputs
