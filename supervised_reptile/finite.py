"""Numbers that are not finite are an error or a counted failure, never a result.

The argmax of NaN is 0, so a diverged network would seem to classify some examples correctly.
"""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np

from supervised_reptile.errors import NotFiniteError


def is_finite(values: np.ndarray) -> bool:
    """Whether every number of an array of any type is finite."""
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.inexact):
        # NumPy does not count bfloat16 and its like among the inexact types.
        if np.issubdtype(values.dtype, np.integer) or values.dtype.kind in "bOSUMm":
            return True
        values = values.astype(np.float32)
    return bool(np.isfinite(values).all())


def check_finite(values: np.ndarray, what: str, hint: str = "") -> None:
    """Raise ``NotFiniteError`` unless every number of an array is finite.

    Args:
        values: Array of any type.
        what: Description of the array, which starts the message: ``"images"``.
        hint: Advice, which ends the message.
    """
    if not is_finite(values):
        bad = int(np.size(values) - np.isfinite(np.asarray(values, np.float32)).sum())
        raise NotFiniteError(
            f"{what} must be finite. Received: {bad} of {np.size(values)} numbers infinite or not "
            f"a number{'. ' + hint if hint else ''}"
        )


def check_variables(variables: Iterable[keras.Variable], whose: str) -> None:
    """Raise ``NotFiniteError`` if a variable is not finite, naming the first such variable."""
    for variable in variables:
        check_finite(variable.numpy(), f"{whose}: variable {variable.path}")


def finite_rows(outputs: np.ndarray) -> np.ndarray:
    """Return which outputs, float [n, ...], are entirely finite; bool [n]."""
    return np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)
