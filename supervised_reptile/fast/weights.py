"""The fast weights φ̃ of the inner loop and the optimizer slots that go with them."""

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

    The copy is held as one flat float32 vector wherever the optimizer treats all numbers alike: one
    step is then one update instead of one for every layer, and the gradient of the split is one
    concatenation. Weights with a rule of their own (a constraint, no weight decay) stay apart. The
    optimizer's slots and step count belong to the copy and survive :meth:`load`, as the paper's
    inner Adam requires: they are never reset from task to task.

    Args:
        weights: Trainable variables of the model, all float32; their values are not used.
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
            self._places = build_recording(optimizer, self.variables)
        else:
            optimizer.build(self.variables)
        # A learning rate that was changed since is no state of the past.
        self._initial_state = [
            (v, v.numpy()) for v in optimizer.variables if v.name != "learning_rate"
        ]
        fused = fused_update(optimizer, self.variables) if self.flat else None
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
        optimizer = new_like(self.optimizer)
        exclude(optimizer, weights, self._undecayed)
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

        The last value says whether this is a slot of the flat vector, in whose place there is one
        of each weight.
        """
        mine, theirs = self.optimizer.variables, optimizer.variables
        if not self.flat:
            beside = [([v], False) for v in theirs]
        elif len(theirs) == len(self._apart):
            beside = []
            for place in self._places:
                same = [v for v, other in zip(theirs, self._apart, strict=True) if other == place]
                beside.append((same, place.slot is not None))
        else:
            beside = []
        found = [[tuple(v.shape) for v in each] for each, _ in beside]
        wanted = [
            self._shapes if slot else [tuple(v.shape)]
            for v, (_, slot) in zip(mine, beside, strict=False)
        ]
        if (
            type(optimizer) is not type(self.optimizer)
            or len(beside) != len(mine)
            or found != wanted
        ):
            raise ValueError(
                f"optimizer must be of {type(self.optimizer).__name__}, built on weights of shapes "
                f"{self._shapes}. Received: {optimizer.name} with variables of shapes "
                f"{[tuple(v.shape) for v in theirs]}"
            )
        return [(v, same, slot) for v, (same, slot) in zip(mine, beside, strict=True)]

    @functools.cached_property
    def _apart(self) -> list[Place]:
        """The places of an optimizer like this one with a variable for each weight."""
        weights = [_variable(shape, "weight") for shape in self._shapes]
        return build_recording(new_like(self.optimizer), weights)

    def reset_optimizer(self) -> None:
        """Set slots and step count to what they were when the optimizer was new."""
        for variable, value in self._initial_state:
            variable.value.assign(value)

    def twin(self) -> FastWeights:
        """Another working copy of the same layout with an optimizer of the same configuration."""
        optimizer = new_like(self.optimizer)
        exclude(optimizer, self._weights, self._undecayed)
        return FastWeights(self._weights, optimizer)


def _variable(shape: Sequence[int], name: str) -> keras.Variable:
    return keras.Variable(np.zeros(shape, np.float32), name=name)


def _copy_of(weight: keras.Variable) -> keras.Variable:
    """A variable that an optimizer treats like this weight."""
    copy = _variable(weight.shape, weight.name)
    copy._path = weight.path  # Muon goes by it
    copy.constraint = weight.constraint
    copy.overwrite_with_gradient = getattr(weight, "overwrite_with_gradient", False)
    return copy


def _has_a_rule_of_its_own(weight: keras.Variable) -> bool:
    return weight.constraint is not None or getattr(weight, "overwrite_with_gradient", False)


def _is_elementwise(optimizer: keras.optimizers.Optimizer) -> bool:
    # A norm is clipped variable by variable; clipping values or the global norm is not.
    return type(optimizer) in _ELEMENTWISE and optimizer.clipnorm is None
