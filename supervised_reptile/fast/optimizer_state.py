"""Optimizers of one configuration on different variables, and where each keeps the same thing."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import keras


class Place(NamedTuple):
    """What a variable of an optimizer is for.

    Attributes:
        slot: Name of the slot, such as ``"momentum"``; ``None`` for what belongs to no weight,
            such as the step count.
        number: How many with that name came before: of the same weight, or without a weight.
    """

    slot: str | None
    number: int


def build_recording(
    optimizer: keras.optimizers.Optimizer, weights: Sequence[keras.Variable]
) -> list[Place]:
    """Build an optimizer and see what it makes each of its variables for.

    Keras lists the slots in an order of each optimizer's own (RMSprop with momentum: all
    velocities, then all momenta), so the order alone does not say which is which.

    Args:
        optimizer: New Keras optimizer.
        weights: What to build it on.

    Returns:
        The place of each of ``optimizer.variables``.
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

    vars(optimizer)["add_variable_from_reference"] = recorded  # hides the method for a moment
    try:
        optimizer.build(weights)
    finally:
        del vars(optimizer)["add_variable_from_reference"]
    others = itertools.count()
    return [places.get(id(v)) or Place(None, next(others)) for v in optimizer.variables]


def new_like(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """A new optimizer of the same configuration, with the same schedule object."""
    config = optimizer.get_config()
    rate = optimizer._learning_rate
    if "learning_rate" in config and not isinstance(rate, keras.Variable):
        config["learning_rate"] = rate  # a schedule may be of the user's own class
    return type(optimizer).from_config(config)


def undecayed(
    optimizer: keras.optimizers.Optimizer, weights: Sequence[keras.Variable]
) -> list[bool]:
    """Which weights the user excluded from the optimizer's weight decay."""
    return [not _decaying(optimizer)._use_weight_decay(weight.value) for weight in weights]


def exclude(
    optimizer: keras.optimizers.Optimizer,
    weights: Sequence[keras.Variable],
    excluded: Sequence[bool],
) -> None:
    """Exclude weights from the weight decay of an optimizer that is not built yet."""
    chosen = [weight for weight, out in zip(weights, excluded, strict=True) if out]
    if chosen:
        _decaying(optimizer).exclude_from_weight_decay(var_list=chosen)


def _decaying(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    return getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
