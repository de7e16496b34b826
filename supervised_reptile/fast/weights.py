"""The fast weights φ̃ of the inner loop and the optimizer slots that go with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

# Optimizers whose rule for one number looks at no other number: for these, all weights may lie
# in one flat vector. (LAMB, Adafactor, Muon … work on whole matrices.)
_ELEMENTWISE = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.Adamax,
    keras.optimizers.Nadam,
    keras.optimizers.RMSprop,
    keras.optimizers.Adagrad,
    keras.optimizers.Adadelta,
    keras.optimizers.Ftrl,
    keras.optimizers.Lion,
)


class FastWeights:
    """A working copy φ̃ of a model's trainable weights, with an optimizer that steps it.

    The copy is held as one flat float32 vector wherever the optimizer allows it: one step is
    then one update instead of one for every layer, and the gradient of the split is one
    concatenation. The optimizer's slots and step count belong to the copy and survive
    :meth:`load`, as the paper's inner Adam requires: they are never reset from task to task.

    Args:
        weights: Trainable variables of the model, all float32; only their shapes and names are
            used here.
        optimizer: An unbuilt Keras optimizer; it is built on the copy and owned by it.

    Raises:
        ValueError: ``optimizer`` was built on other variables already.
    """

    def __init__(
        self, weights: Sequence[keras.Variable], optimizer: keras.optimizers.Optimizer
    ) -> None:
        if optimizer.built:
            raise ValueError(
                "optimizer must be new, as its slots belong to the fast weights. "
                f"Received: {optimizer.name}, built on other variables"
            )
        self._shapes = [tuple(w.shape) for w in weights]
        self._sizes = [int(np.prod(shape)) for shape in self._shapes]
        self.flat = _is_elementwise(optimizer)
        if self.flat:
            self.variables = [_variable((sum(self._sizes),), "fast_weights")]
        else:
            self.variables = [_variable(w.shape, f"fast_{w.name}") for w in weights]
        self.optimizer = optimizer
        optimizer.build(self.variables)
        # A learning rate that was changed since is no state of the past.
        self._initial_state = [
            (v, v.numpy()) for v in optimizer.variables if v.name != "learning_rate"
        ]
        fused = _fused_update(optimizer, self.variables)
        self.uses_fused_update = fused is not None
        self._apply_gradients = fused or (
            lambda gradients: optimizer.apply(gradients, self.variables)
        )

    def pack(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """One tensor a weight → the layout of :attr:`variables`."""
        if not self.flat:
            return [tf.convert_to_tensor(t) for t in tensors]
        return [tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)]

    def unpack(self, packed: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The layout of :attr:`variables` → one tensor a weight, of the weight's shape."""
        if not self.flat:
            return list(packed)
        parts = tf.split(packed[0], self._sizes)
        return [tf.reshape(p, s) for p, s in zip(parts, self._shapes, strict=True)]

    def values(self) -> list[tf.Tensor]:
        """The current φ̃, in packed layout."""
        return [v.value.read_value() for v in self.variables]

    def load(self, packed: Sequence[tf.Tensor]) -> None:
        """Set φ̃; the optimizer's slots and step count stay as they are."""
        for variable, value in zip(self.variables, packed, strict=True):
            variable.value.assign(value)

    def decay(self, factor: float) -> None:
        """Multiply every trainable weight by ``factor``."""
        for variable in self.variables:
            variable.value.assign(variable.value * factor)

    def apply_gradients(self, gradients: Sequence[tf.Tensor]) -> None:
        """One optimizer step on φ̃; ``gradients`` in packed layout."""
        self._apply_gradients(gradients)

    def copy_optimizer_state(self, other: FastWeights) -> None:
        """Take over slots, step count and learning rate of ``other``, bit for bit."""
        for mine, theirs in zip(self.optimizer.variables, other.optimizer.variables, strict=True):
            mine.value.assign(theirs.value)

    def optimizer_for(self, weights: Sequence[keras.Variable]) -> keras.optimizers.Optimizer:
        """An optimizer of the same configuration and state, built on a model's weights.

        Args:
            weights: Trainable variables of the shapes of this copy.

        Returns:
            Optimizer with slots of its own for each weight, as Keras stores it with a model.
        """
        optimizer = type(self.optimizer).from_config(self.optimizer.get_config())
        optimizer.build(weights)
        self.give_optimizer_state(optimizer)
        return optimizer

    def give_optimizer_state(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Bring slots, step count and learning rate of an :meth:`optimizer_for` up to date."""
        for mine, theirs, unpacked in self._state_beside(optimizer):
            values = self.unpack([mine]) if unpacked else [mine]
            for variable, value in zip(theirs, values, strict=True):
                variable.assign(value)

    def take_optimizer_state(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Take over slots and step count, but not the learning rate.

        Args:
            optimizer: One of the same kind, built on weights of the shapes of this copy, such as
                :meth:`optimizer_for` gives.

        Raises:
            ValueError: It is of another kind, or was built on other weights.
        """
        for mine, theirs, unpacked in self._state_beside(optimizer):
            if mine.name != "learning_rate":
                values = [tf.convert_to_tensor(v) for v in theirs]
                mine.assign(self.pack(values)[0] if unpacked else values[0])

    def _state_beside(
        self, optimizer: keras.optimizers.Optimizer
    ) -> list[tuple[keras.Variable, list[keras.Variable], bool]]:
        """Each variable of this copy's optimizer, and what is in its place in another one.

        The last value tells a slot of the flat vector, in whose place there is one of each weight.
        Keras lists the step count and the learning rate, then all slots of the first weight, of
        the second …
        """
        mine, theirs = self.optimizer.variables, optimizer.variables
        places = len(self._shapes) if self.flat else 1
        is_slot = [self.flat and v.shape == self.variables[0].shape for v in mine]
        first, slots = (is_slot.index(True), sum(is_slot)) if any(is_slot) else (len(mine), 0)
        end = first + slots * places
        by_kind = [theirs[first + i : end : slots] for i in range(slots)]
        beside = [*([v] for v in theirs[:first]), *by_kind, *([v] for v in theirs[end:])]
        shapes = [
            self._shapes if slot else [v.shape] for v, slot in zip(mine, is_slot, strict=True)
        ]
        found = [[tuple(v.shape) for v in each] for each in beside]
        if type(optimizer) is not type(self.optimizer) or found != shapes:
            raise ValueError(
                f"optimizer must be of {type(self.optimizer).__name__}, built on weights of shapes "
                f"{self._shapes}. Received: {optimizer.name} with variables of shapes {found}"
            )
        return list(zip(mine, beside, is_slot, strict=True))

    def reset_optimizer(self) -> None:
        """Set slots and step count to what they were when the optimizer was new."""
        for variable, value in self._initial_state:
            variable.value.assign(value)

    def twin(self) -> FastWeights:
        """Another working copy of the same layout with an optimizer of the same configuration."""
        optimizer = type(self.optimizer).from_config(self.optimizer.get_config())
        weights = [_variable(shape, f"weight_{i}") for i, shape in enumerate(self._shapes)]
        return FastWeights(weights, optimizer)


def _variable(shape: Sequence[int], name: str) -> keras.Variable:
    return keras.Variable(np.zeros(shape, np.float32), name=name)


def _is_elementwise(optimizer: keras.optimizers.Optimizer) -> bool:
    # A norm is clipped variable by variable; clipping values or the global norm is not.
    return type(optimizer) in _ELEMENTWISE and optimizer.clipnorm is None


def _fused_update(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> Callable[[Sequence[tf.Tensor]], None] | None:
    """TensorFlow's single-kernel form of ``optimizer.apply``, where there is an exact one.

    It works on the optimizer's own slots and step count, so that which of the two ran cannot be
    told from the state.
    """
    decorated = (
        optimizer.clipnorm is not None
        or optimizer.clipvalue is not None
        or optimizer.global_clipnorm is not None
        or optimizer.weight_decay is not None
        or optimizer.use_ema
        or optimizer.gradient_accumulation_steps is not None
        or optimizer.loss_scale_factor is not None
    )
    if decorated or len(variables) != 1:
        return None
    (variable,) = variables

    def learning_rate() -> tf.Tensor:
        return tf.convert_to_tensor(optimizer.learning_rate)

    if type(optimizer) is keras.optimizers.SGD and optimizer.momentum == 0:

        def gradient_descent(gradients: Sequence[tf.Tensor]) -> None:
            tf.raw_ops.ResourceApplyGradientDescent(
                var=variable.value.handle, alpha=learning_rate(), delta=gradients[0]
            )
            optimizer.iterations.value.assign_add(1)

        return gradient_descent

    if type(optimizer) is keras.optimizers.Adam and not optimizer.amsgrad:
        # The slots come last in `variables`: before them the step count and, unless it follows a
        # schedule, the learning rate.
        *_, momentum, velocity = optimizer.variables

        def adam(gradients: Sequence[tf.Tensor]) -> None:
            step = tf.cast(optimizer.iterations.value + 1, tf.float32)
            # var −= lr·√(1−β2^t)/(1−β1^t) · m/(√v + ε), as in keras.optimizers.Adam.
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle,
                m=momentum.value.handle,
                v=velocity.value.handle,
                beta1_power=tf.pow(tf.constant(optimizer.beta_1, tf.float32), step),
                beta2_power=tf.pow(tf.constant(optimizer.beta_2, tf.float32), step),
                lr=learning_rate(),
                beta1=optimizer.beta_1,
                beta2=optimizer.beta_2,
                epsilon=optimizer.epsilon,
                grad=gradients[0],
            )
            optimizer.iterations.value.assign_add(1)

        return adam
    return None
