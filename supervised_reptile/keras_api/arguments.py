"""Arguments: optimizers and losses as ``compile`` takes them, numbers and switches."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np

OptimizerLike: TypeAlias = keras.optimizers.Optimizer | str | dict
LossLike: TypeAlias = keras.losses.Loss | str | dict | Callable


class LossOf(keras.losses.Loss):
    """The mean over the mini-batch of a function from (targets, outputs) to example losses."""

    def __init__(self, function: Callable) -> None:
        name = re.sub(
            r"\W", "", getattr(function, "__name__", "")
        )  # "<lambda>" is no name of a scope
        super().__init__(name=name or "loss")
        self._function = function

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Compute the loss of each example.

        As in Keras, an axis of one is no difference: without this, targets [batch] and outputs
        [batch, 1] would be broadcast to all pairs.
        """
        if len(y_true.shape) < len(y_pred.shape):
            y_true, y_pred = _of_same_rank(y_true, y_pred)
        else:
            y_pred, y_true = _of_same_rank(y_pred, y_true)
        return self._function(y_true, y_pred)

    def get_config(self) -> dict:
        """Return the configuration, which contains the function."""
        return {"function": self._function}


def _of_same_rank(
    lower: keras.KerasTensor, higher: keras.KerasTensor
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Return two arrays without a last axis of one that only the second has."""
    if len(lower.shape) + 1 != len(higher.shape) or higher.shape[-1] != 1:
        return lower, higher
    if len(lower.shape) == 1:
        return keras.ops.expand_dims(lower, -1), higher
    return lower, keras.ops.squeeze(higher, -1)


def check_integers(low: int, **values: object) -> None:
    """Raise ``ValueError`` if one of these arguments is no integer, or too small."""
    for name, value in values.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise ValueError(f"{name} must be an integer. Received: {value!r}")
        if value < low:
            raise ValueError(f"{name} must be at least {low}. Received: {value}")


def check_numbers(rule: str, holds: Callable[[float], bool], **values: Any) -> None:
    """Raise ``ValueError`` if one of these arguments is no finite number, or breaks a rule.

    Args:
        rule: The rule in words: ``"greater than 0"``.
        holds: Whether a number obeys it.
        **values: The arguments by name.
    """
    for name, value in values.items():
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value) and holds(value)):
            raise ValueError(f"{name} must be {rule}. Received: {value!r}")


def check_switches(**values: object) -> None:
    """Raise ``ValueError`` if one of these arguments is neither ``True`` nor ``False``."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} must be True or False. Received: {value!r}")


def optimizer_of(given: OptimizerLike, what: str) -> keras.optimizers.Optimizer:
    """Return a Keras optimizer from any form that ``compile`` accepts.

    Args:
        given: An optimizer, its name or its configuration.
        what: Name of the argument in errors.

    Raises:
        ValueError: ``given`` is none of these.
    """
    try:
        return keras.optimizers.get(given)
    except (ValueError, TypeError):
        raise ValueError(
            f"{what} must be a keras.optimizers.Optimizer, or its name or configuration. "
            f"Received: {given!r}"
        ) from None


def loss_of(given: LossLike) -> keras.losses.Loss:
    """Return a Keras loss from any form that ``compile`` accepts; a name means the batch mean.

    Args:
        given: A loss, its name or configuration, or a function from (targets, outputs) to the loss
            of each example.

    Raises:
        ValueError: ``given`` is none of these.
    """
    wrong = ValueError(
        "loss must be a keras.losses.Loss, its name or configuration, or a function of targets and "
        f"outputs. Received: {given!r}"
    )
    try:
        found = keras.losses.get(given)
    except (ValueError, TypeError):
        raise wrong from None
    if isinstance(found, type) and issubclass(found, keras.losses.Loss):
        return found()
    if isinstance(found, keras.losses.Loss):
        return found
    if not callable(found):
        raise wrong
    # Keras maps a name to a function; only its class can be saved with a model, and be checked.
    function = getattr(found, "__name__", "")
    if found is getattr(keras.losses, function, None):
        for name, kind in vars(keras.losses).items():
            if isinstance(kind, type) and name.lower() == function.replace("_", "").lower():
                return kind()
    return LossOf(found)
