"""The fast weights φ̃ of the inner loop and their optimizer slots."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from supervised_reptile.fast.fused_update import fused_update
from supervised_reptile.fast.optimizer_state import (
    Place,
    build_recording,
    exclude,
    new_like,
    undecayed,
)

# Elementwise optimizers: the update of one number depends on no other number, so all weights may
# be stored in one flat vector. (LAMB, Adafactor, Muon … work on whole matrices.)
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
    """A working copy φ̃ of a model's trainable weights, with an optimizer that updates it.

    The copy is one flat float32 vector if the optimizer treats all numbers alike. A step is then
    one update instead of one per layer, and the gradient of the split is one concatenation. If a
    weight has a rule of its own (a constraint, no weight decay), all weights stay separate. The
    optimizer's slots and step count belong to the copy and survive :meth:`load`, as the paper's
    inner Adam requires: they are not reset between tasks.

    Args:
        weights: Trainable variables of the model, all float32. Their values are not used.
        optimizer: A Keras optimizer that is not built yet. It is built on the copy.

    Raises:
        ValueError: ``optimizer`` has already been built.
    """

    def __init__(
        self, weights: Sequence[keras.Variable], optimizer: keras.optimizers.Optimizer
    ) -> None:
        if optimizer.built:
            raise ValueError(
                "optimizer must be new because its slots belong to the fast weights. "
                f"Received: {optimizer.name}, built on other variables"
            )
        self._weights = list(weights)
        self._shapes = [tuple(w.shape) for w in weights]
        self._sizes = [int(np.prod(shape)) for shape in self._shapes]
        self._undecayed = undecayed(optimizer, weights)
        self.flat = _is_elementwise(optimizer) and not (
            any(self._undecayed) or any(map(_has_a_rule_of_its_own, weights))
        )
        if self.flat:
            self.variables = [_variable((sum(self._sizes),), "fast_weights")]
        else:
            self.variables = [_copy_of(weight) for weight in weights]
        self.optimizer = optimizer
        exclude(optimizer, self.variables, self._undecayed if not self.flat else [False])
        if self.flat:
            self._roles = build_recording(optimizer, self.variables)
        else:
            optimizer.build(self.variables)
        # Without the learning rate: resetting the state must not undo a change of it.
        self._initial_state = [
            (v, v.numpy()) for v in optimizer.variables if v.name != "learning_rate"
        ]
        fused = fused_update(optimizer, self.variables) if self.flat else None
        self.uses_fused_update = fused is not None
        self._apply_gradients = fused or (
            lambda gradients: optimizer.apply(gradients, self.variables)
        )

    def pack(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Convert one tensor per weight to the layout of :attr:`variables`."""
        if not self.flat:
            return [tf.convert_to_tensor(t) for t in tensors]
        return [tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)]

    def unpack(self, packed: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Convert the layout of :attr:`variables` to one tensor per weight, of its shape."""
        if not self.flat:
            return list(packed)
        parts = tf.split(packed[0], self._sizes)
        return [tf.reshape(p, s) for p, s in zip(parts, self._shapes, strict=True)]

    def values(self) -> list[tf.Tensor]:
        """Return the current φ̃, packed."""
        return [v.value.read_value() for v in self.variables]

    def load(self, packed: Sequence[tf.Tensor]) -> None:
        """Set φ̃. The optimizer's slots and step count do not change."""
        for variable, value in zip(self.variables, packed, strict=True):
            variable.value.assign(value)

    def decay(self, factor: float) -> None:
        """Multiply every trainable weight by ``factor``."""
        for variable in self.variables:
            variable.value.assign(variable.value * factor)

    def apply_gradients(self, gradients: Sequence[tf.Tensor]) -> None:
        """Take one optimizer step on φ̃; ``gradients`` are packed."""
        self._apply_gradients(gradients)

    def copy_optimizer_state(self, other: FastWeights) -> None:
        """Copy slots, step count and learning rate from ``other``, bit for bit."""
        for mine, theirs in zip(self.optimizer.variables, other.optimizer.variables, strict=True):
            mine.value.assign(theirs.value)

    def optimizer_state(self) -> list[tf.Tensor]:
        """Return slots and step count, without the learning rate."""
        return [v.value.read_value() for v, _ in self._initial_state]

    def load_optimizer_state(self, values: Sequence[tf.Tensor]) -> None:
        """Set slots and step count; ``values`` are as :meth:`optimizer_state` returns them."""
        for (variable, _), value in zip(self._initial_state, values, strict=True):
            variable.value.assign(value)

    def optimizer_for(self, weights: Sequence[keras.Variable]) -> keras.optimizers.Optimizer:
        """Return an optimizer of the same configuration and state, built on a model's weights.

        Args:
            weights: Trainable variables of the same shapes as this copy.

        Returns:
            Optimizer with separate slots for each weight, as Keras stores it with a model.
        """
        optimizer = new_like(self.optimizer)
        exclude(optimizer, weights, self._undecayed)
        optimizer.build(weights)
        self.give_optimizer_state(optimizer)
        return optimizer

    def give_optimizer_state(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Copy the current state to an optimizer that :meth:`optimizer_for` returned."""
        for mine, theirs, unpacked in self._matched_variables(optimizer):
            values = self.unpack([mine]) if unpacked else [mine]
            for variable, value in zip(theirs, values, strict=True):
                variable.assign(value)

    def take_optimizer_state(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Copy slots and step count from an optimizer, but not its learning rate.

        Args:
            optimizer: Optimizer of the same class, built on weights of the same shapes, such as
                one from :meth:`optimizer_for`.

        Raises:
            ValueError: The optimizer has another class, or was built on other weights.
        """
        for mine, theirs, unpacked in self._matched_variables(optimizer):
            if mine.name != "learning_rate":
                values = [tf.convert_to_tensor(v) for v in theirs]
                mine.assign(self.pack(values)[0] if unpacked else values[0])

    def _matched_variables(
        self, optimizer: keras.optimizers.Optimizer
    ) -> list[tuple[keras.Variable, list[keras.Variable], bool]]:
        """Pair each variable of this copy's optimizer with its counterparts in another one.

        The last value is whether the variable is a slot of the flat vector, which has one
        counterpart per weight.
        """
        mine, theirs = self.optimizer.variables, optimizer.variables
        if not self.flat:
            matches = [([v], False) for v in theirs]
        elif len(theirs) == len(self._separate_roles):
            matches = []
            for place in self._roles:
                same = [
                    v
                    for v, other in zip(theirs, self._separate_roles, strict=True)
                    if other == place
                ]
                matches.append((same, place.slot is not None))
        else:
            matches = []
        found = [[tuple(v.shape) for v in each] for each, _ in matches]
        wanted = [
            self._shapes if slot else [tuple(v.shape)]
            for v, (_, slot) in zip(mine, matches, strict=False)
        ]
        if (
            type(optimizer) is not type(self.optimizer)
            or len(matches) != len(mine)
            or found != wanted
        ):
            raise ValueError(
                f"optimizer must be of {type(self.optimizer).__name__}, built on weights of shapes "
                f"{self._shapes}. Received: {optimizer.name} with variables of shapes "
                f"{[tuple(v.shape) for v in theirs]}"
            )
        return [(v, same, slot) for v, (same, slot) in zip(mine, matches, strict=True)]

    @functools.cached_property
    def _separate_roles(self) -> list[Place]:
        """The roles of the variables of such an optimizer with separate weights."""
        weights = [_variable(shape, "weight") for shape in self._shapes]
        return build_recording(new_like(self.optimizer), weights)

    def reset_optimizer(self) -> None:
        """Reset slots and step count to their initial values."""
        for variable, value in self._initial_state:
            variable.value.assign(value)

    def twin(self) -> FastWeights:
        """Return another working copy with an optimizer of the same configuration."""
        optimizer = new_like(self.optimizer)
        exclude(optimizer, self._weights, self._undecayed)
        return FastWeights(self._weights, optimizer)


def _variable(shape: Sequence[int], name: str) -> keras.Variable:
    return keras.Variable(np.zeros(shape, np.float32), name=name)


def _copy_of(weight: keras.Variable) -> keras.Variable:
    """Return a variable that an optimizer treats like this weight."""
    copy = _variable(weight.shape, weight.name)
    copy._path = weight.path  # Muon decides by it
    copy.constraint = weight.constraint
    copy.overwrite_with_gradient = getattr(weight, "overwrite_with_gradient", False)
    return copy


def _has_a_rule_of_its_own(weight: keras.Variable) -> bool:
    return weight.constraint is not None or getattr(weight, "overwrite_with_gradient", False)


def _is_elementwise(optimizer: keras.optimizers.Optimizer) -> bool:
    # `clipnorm` clips each variable separately; the other ways of clipping do not.
    return type(optimizer) in _ELEMENTWISE and optimizer.clipnorm is None
