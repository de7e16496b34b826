"""Optimizers and losses as ``compile`` takes them: an object, a name or a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import keras

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
