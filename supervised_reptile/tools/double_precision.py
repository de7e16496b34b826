"""Double precision, to check results in float32 against."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Within the context Keras builds networks and optimizers in float64."""
    usual, usual_policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(usual)
        keras.config.set_dtype_policy(usual_policy)
