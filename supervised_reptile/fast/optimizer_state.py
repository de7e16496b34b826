"""Match the variables of equal optimizers that were built on different weights."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import keras


class Place(NamedTuple):
    """The role of a variable of an optimizer.

    Attributes:
        slot: Name of the slot, such as ``"momentum"``; ``None`` for variables that belong to no
            weight, such as the step count.
        number: Number of earlier variables with the same name and the same weight (or no weight).
    """

    slot: str | None
    number: int


def build_recording(
    optimizer: keras.optimizers.Optimizer, weights: Sequence[keras.Variable]
) -> list[Place]:
    """Build an optimizer and record the role of each of its variables.

    Each optimizer class has its own order of slots in Keras (RMSprop with momentum: all
    velocities, then all momenta), so the order alone does not identify them.

    Args:
        optimizer: New Keras optimizer.
        weights: Variables to build it on.

    Returns:
        The role of each of ``optimizer.variables``.
    """
    places: dict[int, Place] = {}
    counts: Counter = Counter()
    make = optimizer.add_variable_from_reference

    def recorded(reference_variable: keras.Variable, name: str | None = None, **how):
        variable = make(reference_variable, name=name, **how)
        weight = id(reference_variable)
        places[id(variable)] = Place(name or "", counts[name, weight])
        counts[name, weight] += 1
        return variable

    vars(optimizer)["add_variable_from_reference"] = recorded  # temporarily hides the method
    try:
        optimizer.build(weights)
    finally:
        del vars(optimizer)["add_variable_from_reference"]
    others = itertools.count()
    return [places.get(id(v)) or Place(None, next(others)) for v in optimizer.variables]


def moves_without_gradient(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether a step moves weights whose gradient is 0, as with weight decay.

    Args:
        optimizer: Keras optimizer; it does not change.
    """
    optimizer = _unwrapped(optimizer)
    config = optimizer.get_config() | {"learning_rate": 1.0, "gradient_accumulation_steps": None}
    weight = keras.Variable([[1.0, 2.0], [3.0, 4.0]])
    before = weight.numpy()
    type(optimizer).from_config(config).apply([keras.ops.zeros_like(weight)], [weight])
    return bool((weight.numpy() != before).any())


def new_like(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return a new optimizer of the same configuration, with the same schedule object."""
    config = optimizer.get_config()
    rate = optimizer._learning_rate
    if "learning_rate" in config and not isinstance(rate, keras.Variable):
        config["learning_rate"] = rate  # a schedule may have a custom class
    return type(optimizer).from_config(config)


def undecayed(
    optimizer: keras.optimizers.Optimizer, weights: Sequence[keras.Variable]
) -> list[bool]:
    """Return which weights the user excluded from the optimizer's weight decay."""
    return [not _unwrapped(optimizer)._use_weight_decay(weight.value) for weight in weights]


def exclude(
    optimizer: keras.optimizers.Optimizer,
    weights: Sequence[keras.Variable],
    excluded: Sequence[bool],
) -> None:
    """Exclude weights from the weight decay of an optimizer that is not built yet."""
    chosen = [weight for weight, out in zip(weights, excluded, strict=True) if out]
    if chosen:
        _unwrapped(optimizer).exclude_from_weight_decay(var_list=chosen)


def _unwrapped(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    return getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
