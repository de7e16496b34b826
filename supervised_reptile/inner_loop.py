"""The inner loop: k optimizer steps on the mini-batches of one task, in one compiled graph."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.checks import check_outputs, check_used, last_activation
from supervised_reptile.fast.optimizer_state import moves_without_gradient
from supervised_reptile.fast.weights import FastWeights
from supervised_reptile.pure_model import Called, LayerState, PureModel, is_seed
from supervised_reptile.tasks import EvaluationTasks, MiniBatches, TrainingTasks


class InnerLoop:
    r"""Run inner steps φ̃ ← U(φ̃; mini-batch) on one task, and predict with the result.

    One step is, as in the authors' program:

    .. math::
        \tilde\phi \leftarrow r\,\tilde\phi, \qquad
        g = \nabla_{\tilde\phi} \sum_{j \in \text{mini-batch}} L(f(x_j; \tilde\phi), y_j), \qquad
        \tilde\phi \leftarrow \text{optimizer}(\tilde\phi, g)

    The gradient is that of the **sum** of the losses over the mini-batch, not of the mean (with
    ``reduction="sum"``, the learners' default). Losses that layers add (regularizers,
    ``add_loss``) count once per step, as in Keras' own ``train_step``.

    Steps call the model with ``training=True``, predictions with ``training=False``. The state of
    the layers advances with the steps of a task, see :class:`LayerState`.

    Weights are "packed": a list of tensors in the layout of :class:`FastWeights`, which is one flat
    float32 vector if the optimizer allows it.

    Args:
        model: Keras model to run. The inner loop never writes to its variables.
        loss: Keras loss; its reduction is honored.
        fast_weights: Holds φ̃ and the optimizer's state.
        weight_decay: r in (0, 1]; 1 means no decay.
        input_scale: Factor from stored examples (e.g. uint8) to the model's float32 input.

    Attributes:
        ends_in: ``"softmax"`` or ``"sigmoid"`` if the model ends in one, known after
            :meth:`rehearse`.
    """

    ends_in: str | None = None

    def __init__(
        self,
        model: keras.Model,
        loss: keras.losses.Loss,
        fast_weights: FastWeights,
        *,
        weight_decay: float = 1.0,
        input_scale: float = 1.0,
    ) -> None:
        self._model = PureModel(model)
        self._loss = loss
        self._weight_decay = weight_decay
        self._input_scale = input_scale
        self.fast_weights = fast_weights

    def twin(self) -> InnerLoop:
        """Return the same loop on another working copy of the weights, to run in parallel."""
        other = copy.copy(self)
        other.fast_weights = self.fast_weights.twin()
        vars(other).pop("_layer_state", None)
        return other

    def twice_differentiable(self) -> InnerLoop:
        """Return the same loop in stock operations, whose gradients are differentiable.

        TensorFlow 2.21 silently gives wrong second derivatives of its fused batch normalization.
        """
        other = copy.copy(self)
        other._model = self._model.in_stock_operations()
        return other

    def rehearse(self, inputs: tf.TensorSpec) -> None:
        """Check that the model can be trained, before anything slow starts.

        Args:
            inputs: Shape and type of a batch of examples.

        Raises:
            ValueError: See ``PureModel.rehearse``, ``checks.check_outputs`` and
                ``checks.check_used``.
        """
        inputs = tf.TensorSpec(inputs.shape, self._input_type(inputs.dtype))
        outputs = self._model.rehearse(inputs)
        check_outputs(outputs, self._loss)
        if moves_without_gradient(self.fast_weights.optimizer):
            check_used(self._model.unused_weights(inputs), self.fast_weights.optimizer)
        self.ends_in = last_activation(outputs)

    def check_tasks(
        self, examples: np.ndarray | tf.Variable, tasks: TrainingTasks | EvaluationTasks
    ) -> None:
        """Check that the model can be run on these tasks.

        Raises:
            ValueError: See :meth:`rehearse`, or layers draw random numbers but the tasks have no
                seeds.
        """
        if not self._model.is_rehearsed:
            stored = tf.as_dtype(examples.dtype)
            self.rehearse(tf.TensorSpec([None, *examples.shape[1:]], stored))
        if tasks.seeds is None and any(map(is_seed, self._model.state)):
            raise ValueError(
                "tasks must have seeds because layers of the model draw random numbers: see "
                "tasks.task_seeds. Received: tasks without seeds"
            )

    def start_task(self, seed: tf.Tensor | None) -> None:
        """Begin a task: reset the state of the layers and start new random numbers.

        Args:
            seed: int32 [2], the task's ``seeds``; ``None`` where no layer draws random numbers.
        """
        self._layer_state.start(seed)

    def start_from(self, phi: Sequence[tf.Tensor]) -> None:
        """Set φ̃ ← φ. The optimizer's slots and step count do not change.

        Args:
            phi: Packed weights.
        """
        self.fast_weights.load(phi)

    def weights(self) -> list[tf.Tensor]:
        """Return the current φ̃, packed."""
        return self.fast_weights.values()

    def run(self, examples: tf.Tensor, batches: MiniBatches) -> tf.Tensor:
        """Take one step per mini-batch.

        Args:
            examples: All stored examples, [num_examples, ...].
            batches: Rows int32 [steps, batch] of ``examples`` and labels [steps, batch, ...].

        Returns:
            float32 scalar, the loss before each step, summed over the steps.
        """
        indices, labels = batches

        def step(k: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return k + 1, total + self._step(examples, indices[k], labels[k])

        if indices.shape[0] == 0:  # XLA would trace the loop body anyway
            return tf.constant(0.0)
        # Steps are sequential: each reads the weights that the previous one wrote.
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
        scale = self.fast_weights.optimizer.scale_loss
        loss, gradients = self.loss_and_gradients(self.weights(), examples, rows, labels, scale)
        self.fast_weights.apply_gradients(gradients)
        return loss

    def loss(
        self, weights: Sequence[tf.Tensor], examples: tf.Tensor, rows: tf.Tensor, labels: tf.Tensor
    ) -> tf.Tensor:
        """Compute the loss of one mini-batch at given weights, and advance the layers' state.

        Args:
            weights: Packed weights.
            examples: All stored examples, [num_examples, ...].
            rows: int32 [batch], rows of ``examples``.
            labels: Targets of the loss, [batch, ...].

        Returns:
            float32 scalar.
        """
        called = self._call(weights, self._inputs(examples, rows), training=True)
        self._layer_state.assign(called.state)
        losses = (self._loss(labels, called.outputs), *called.losses)
        first, *added = (tf.cast(each, tf.float32) for each in losses)  # they may have own types
        return sum(added, first)

    def loss_and_gradients(
        self,
        weights: Sequence[tf.Tensor],
        examples: tf.Tensor,
        rows: tf.Tensor,
        labels: tf.Tensor,
        scale: Callable[[tf.Tensor], tf.Tensor] = lambda loss: loss,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Compute the :meth:`loss` of one mini-batch and its gradient.

        Args:
            weights: Packed weights.
            examples: As for :meth:`loss`.
            rows: As for :meth:`loss`.
            labels: As for :meth:`loss`.
            scale: Function of the loss whose result is differentiated instead, such as
                ``optimizer.scale_loss``.

        Returns:
            The loss, float32 scalar, and its gradient with respect to the weights, packed.
        """
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            loss = self.loss(weights, examples, rows, labels)
            scaled = scale(loss)
        # A weight without effect (see fast.network) has gradient 0 and still decays.
        return loss, tape.gradient(
            scaled, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    def predict(self, examples: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Compute the outputs of the network with the current φ̃ for one batch.

        Args:
            examples: All stored examples, [num_examples, ...].
            rows: int32 [batch], rows of ``examples``, which share their batch statistics.

        Returns:
            float32 [batch, outputs].
        """
        called = self._call(self.weights(), self._inputs(examples, rows), training=False)
        return tf.cast(called.outputs, tf.float32)

    @functools.cached_property
    def _layer_state(self) -> LayerState:
        """Created on first use, because only a rehearsal finds the state of the layers."""
        return LayerState(self._model.state)

    def _input_type(self, stored: tf.DType) -> tf.DType:
        """Return the input type; integers stay exact if the model takes integers."""
        unchanged = stored.is_integer and self._model.takes_integers and self._input_scale == 1.0
        return stored if unchanged else tf.float32

    def _inputs(self, examples: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        x = tf.cast(tf.gather(examples, rows), self._input_type(examples.dtype))
        return x if self._input_scale == 1.0 else x * self._input_scale

    def _call(self, weights: Sequence[tf.Tensor], x: tf.Tensor, *, training: bool) -> Called:
        unpacked, state = self.fast_weights.unpack(weights), self._layer_state.values()
        return self._model(unpacked, state, x, training=training)
