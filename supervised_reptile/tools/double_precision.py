"""Double precision, as a reference for float32 results."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Make Keras build networks and optimizers in float64 within the context."""
    usual, usual_policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(usual)
        keras.config.set_dtype_policy(usual_policy)
