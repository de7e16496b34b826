"""Read pickles that are not trusted: NumPy arrays and plain containers, and nothing else.

Reading a pickle runs whatever it names. Here it may name only what arrays are made of; anything
else is refused before it is run.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from supervised_reptile.errors import DatasetError


def load_arrays(path: Path) -> Any:
    """Read a pickle of NumPy arrays in dicts, lists, tuples and sets.

    Args:
        path: The file.

    Returns:
        What was pickled.

    Raises:
        DatasetError: If the file is absent, truncated or damaged, or names anything but arrays
            of numbers and characters.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file).load()
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except _RefusedError as error:
        raise DatasetError(f"{path} is refused: it asks for {error}, not for an array") from None
    except Exception as error:  # damaged bytes may raise anything at all
        raise DatasetError(f"{path} is damaged or no pickle of arrays: {error}") from error


class _RefusedError(Exception):
    pass


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, as Python 3 pickles them for Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"the codec {encoding!r}")
    return text.encode("latin-1")


def _dtype(name: str, *options: bool) -> np.dtype:
    """A type of numbers or characters; not of Python objects, and without fields."""
    dtype = np.dtype(name, False, True)  # a copy, as the pickle goes on to set its byte order
    if dtype.kind not in "biufSU":
        raise _RefusedError(f"the type {name!r}")
    return dtype


def _reconstruct(kind: type, shape: tuple, dtype: bytes) -> np.ndarray:
    """The empty array that a pickled one starts as."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _scalar(dtype: np.dtype, content: bytes) -> Any:
    return np.frombuffer(content, dtype)[0]


def _frombuffer(content: bytes, dtype: np.dtype, shape: tuple, order: str) -> np.ndarray:
    return np.frombuffer(content, dtype).reshape(shape, order=order)


_ALLOWED = {
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _dtype,
    # Only ever handed to _reconstruct, which does not look at it.
    ("numpy", "ndarray"): "ndarray",
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _frombuffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _RefusedError(f"{module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, identifier: Any) -> Any:
        raise _RefusedError("a persistent object")
