"""Copies of Keras models."""

from __future__ import annotations

import keras


def copy_of(model: keras.Model) -> keras.Model:
    """Copy a model with its weights, without compiling it.

    Args:
        model: Functional, Sequential, or of a class with ``get_config``.

    Raises:
        ValueError: The model's class cannot be rebuilt from its configuration.
    """
    try:
        if hasattr(model, "inputs"):
            copy = keras.models.clone_model(model)
        else:
            copy = type(model).from_config(model.get_config())
            copy.build_from_config(model.get_build_config())
        copy.set_weights(model.get_weights())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "a model can be copied and saved only if its class has get_config, from which an equal "
            f"one can be made, as Keras asks. Received: {type(model).__name__}"
        ) from error
    return copy
