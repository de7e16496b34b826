"""Optimizers and losses as ``compile`` takes them: an object, a name or a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

import keras

OptimizerLike: TypeAlias = keras.optimizers.Optimizer | str | dict
LossLike: TypeAlias = keras.losses.Loss | str | dict | Callable


class LossOf(keras.losses.Loss):
    """The mean over the mini-batch of a function (targets, outputs) → loss of each example."""

    def __init__(self, function: Callable) -> None:
        name = re.sub(
            r"\W", "", getattr(function, "__name__", "")
        )  # "<lambda>" is no name of a scope
        super().__init__(name=name or "loss")
        self._function = function

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Loss of each example."""
        return self._function(y_true, y_pred)

    def get_config(self) -> dict:
        """Configuration, with the function."""
        return {"function": self._function}


def optimizer_of(given: OptimizerLike, what: str) -> keras.optimizers.Optimizer:
    """A Keras optimizer from what ``compile`` takes.

    Args:
        given: An optimizer, its name or its configuration.
        what: What to call it in errors.

    Raises:
        ValueError: It is none of these.
    """
    try:
        return keras.optimizers.get(given)
    except (ValueError, TypeError):
        raise ValueError(
            f"{what} must be a keras.optimizers.Optimizer, or its name or configuration. "
            f"Received: {given!r}"
        ) from None


def loss_of(given: LossLike) -> keras.losses.Loss:
    """A Keras loss from what ``compile`` takes; by name it is the mean over the mini-batch.

    Args:
        given: A loss, its name or configuration, or a function (targets, outputs) → loss of each
            example.

    Raises:
        ValueError: It is none of these.
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
    # A name of Keras' gives a function; the class of it can be saved with a model.
    named = getattr(found, "__name__", "").replace("_", "").lower()
    for name, kind in vars(keras.losses).items():
        if isinstance(kind, type) and name.lower() == named and isinstance(given, str):
            return kind()
    return LossOf(found)
