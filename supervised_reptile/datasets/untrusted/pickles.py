"""Read untrusted pickles, restricted to NumPy arrays and plain containers.

A pickle is a program. Python's own reader runs whatever it names, and NumPy's objects take what
the file says about them without a check, down to a crash of the interpreter. Here the program is
only looked at: containers, numbers and text are built as it says, types and arrays become
stand-ins of our own, and an array of NumPy is made from a stand-in when its type, shape and size
agree.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from supervised_reptile.errors import DatasetError

_TYPE = re.compile(r"[<>|=]?([biufSU])(\d{1,6})")
_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}
_DEEPEST = 8  # nested containers


def load_arrays(path: Path) -> Any:
    """Read a pickle of NumPy arrays in dicts, lists, tuples and sets.

    Args:
        path: The file.

    Returns:
        What was pickled; its arrays are read-only.

    Raises:
        DatasetError: The file is missing, truncated or damaged, or names anything but arrays
            of numbers and characters.
    """
    try:
        with path.open("rb") as file:
            return _Machine(_Bounded(file)).run()
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except _RefusedError as error:
        raise DatasetError(f"{path} is refused: it asks for {error}, not for an array") from None
    except OSError as error:
        raise DatasetError(f"{path} could not be read: {error.strerror}") from error
    except Exception as error:  # damaged bytes may raise any error
        raise DatasetError(f"{path} is damaged or no pickle of arrays: {error}") from error


class _RefusedError(Exception):
    pass


class _Bounded:
    """A file that does not allocate memory for more than its remaining bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self.size - self._file.tell())))

    def readline(self) -> bytes:
        return self._file.readline()


# ------------------------------------------------------------------------------- the stand-ins


class _Named:
    """An allowed name in the file, and the result of calling it."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


@dataclasses.dataclass(eq=False)
class _Type:
    """A type of numbers or characters; not of Python objects, and without fields."""

    name: str
    order: str = "="

    def set_state(self, state: Any) -> None:
        """Set the byte order from the state of ``numpy.dtype.__reduce__``."""
        _, order, *fields = state[:5]
        order = _text(order)
        if order not in "<>|=" or len(order) != 1:
            raise ValueError(f"byte order {order!r}")
        if fields != [None, None, None]:
            raise _RefusedError("a type with fields")
        self.order = order

    def dtype(self) -> np.dtype:
        """Return NumPy's type."""
        return np.dtype(self.order + self.name.lstrip("<>|="))


@dataclasses.dataclass(eq=False)
class _Array:
    """An array before the check that its type, shape and bytes agree."""

    shape: Any = (0,)
    type: Any = None
    content: Any = b""
    fortran: bool = False

    def set_state(self, state: Any) -> None:
        """Set the state of ``numpy.ndarray.__reduce__``."""
        _, self.shape, self.type, self.fortran, self.content = state

    def array(self) -> np.ndarray:
        """Return NumPy's array, which shares the bytes."""
        kind, shape, content = self.type, self.shape, self.content
        if isinstance(content, str):  # bytes of Python 2
            content = content.encode("latin-1")
        if not isinstance(kind, _Type) or not isinstance(content, bytes):
            raise ValueError("an array without type or content")
        if not isinstance(shape, tuple) or len(shape) > 32 or not all(map(_is_count, shape)):
            raise ValueError(f"an array of shape {str(shape)[:80]}")
        dtype = kind.dtype()
        if math.prod(shape) * dtype.itemsize != len(content):
            raise ValueError(f"an array of shape {shape} in {len(content)} bytes")
        if not content:
            return np.zeros(shape, dtype)
        return np.frombuffer(content, dtype).reshape(shape, order="F" if self.fortran else "C")


def _type(name: Any, *options: Any) -> _Type:
    match = _TYPE.fullmatch(name := _text(name))
    if not match or int(match[2]) not in _SIZES.get(match[1], (int(match[2]),)):
        raise _RefusedError(f"the type {name!r}")
    return _Type(name)


def _scalar(kind: Any, content: Any) -> Any:
    return _Array((), kind, content).array()[()]


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any = "C") -> _Array:
    return _Array(shape, kind, bytes(content), order == "F")


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes that Python 3 pickled for Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"the codec {encoding!r}")
    return text.encode("latin-1")


_NAMES = {
    "_codecs encode": _Named(_encode),
    "__builtin__ bytes": _Named(lambda: b""),  # how Python 3 pickles empty bytes for Python 2
    "numpy dtype": _Named(_type),
    # Only ever handed to _reconstruct, which does not look at it.
    "numpy ndarray": "ndarray",
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray _reconstruct"] = _Named(lambda *options: _Array())
    _NAMES[f"{_core}.multiarray scalar"] = _Named(_scalar)
    _NAMES[f"{_core}.numeric _frombuffer"] = _Named(_from_buffer)


# --------------------------------------------------------------------------------- the machine

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
_LITERALS = set(
    """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    """.split()
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class _Machine:
    """Execute a pickle, restricted to building arrays in containers."""

    def __init__(self, file: _Bounded) -> None:
        self._file = file
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._encoded = 0

    def run(self) -> Any:
        file: Any = self._file  # which has all that genops uses
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name not in ("STOP", "PROTO", "FRAME"):
                self._step(opcode.name, argument)
        (result,) = self._stack
        return _finished(result, {}, 0)

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE", "LIST"):
            items = self._to_mark()
            stack.append(tuple(items) if name == "TUPLE" else items)
        elif name == "DICT":
            items = self._to_mark()
            stack.append(dict(zip(items[::2], items[1::2], strict=True)))
        elif name in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name in ("APPEND", "APPENDS"):
            items = [self._pop()] if name == "APPEND" else self._to_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [self._pop(), self._pop()][::-1] if name == "SETITEM" else self._to_mark()
            self._top(dict).update(zip(items[::2], items[1::2], strict=True))
        elif name == "ADDITEMS":
            items = self._to_mark()
            self._top(set).update(items)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._top(object)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        else:
            self._objects(name, argument)

    def _objects(self, name: str, argument: Any) -> None:
        """Execute the operations that could run arbitrary code in Python."""
        if name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                attribute, module = self._pop(), self._pop()
                argument = f"{module} {attribute}"
            if argument not in _NAMES:
                raise _RefusedError(argument.replace(" ", "."))
            self._stack.append(_NAMES[argument])
        elif name == "REDUCE":
            arguments, named = self._pop(), self._pop()
            if not isinstance(named, _Named) or not isinstance(arguments, tuple):
                raise ValueError("it calls what is no function")
            result = named.call(*arguments)
            self._encoded += len(result) if isinstance(result, bytes) else 0
            if self._encoded > self._file.size:  # the same text, again and again
                raise ValueError("it holds more than its size")
            self._stack.append(result)
        elif name == "BUILD":
            state, top = self._pop(), self._top(_Type, _Array)
            top.set_state(state)
        else:
            raise _RefusedError(f"the operation {name}")

    def _pop(self) -> Any:
        item = self._stack.pop()
        if item is _MARK:
            raise ValueError("its stack is out of order")
        return item

    def _top(self, *kinds: type) -> Any:
        top = self._stack[-1]
        if top is _MARK or not isinstance(top, kinds):
            raise ValueError("its stack is out of order")
        return top

    def _to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]


def _finished(item: Any, done: dict[int, Any], depth: int) -> Any:
    """Replace the stand-ins with arrays of NumPy."""
    if depth > _DEEPEST:
        raise ValueError("containers in one another without end")
    if isinstance(item, _Type | _Named):
        raise _RefusedError("a type")
    if not isinstance(item, _Array | dict | list | tuple | set):
        return item
    if id(item) not in done:  # an item in several places is converted once
        done[id(item)] = _made(item, done, depth + 1)
    return done[id(item)]


def _made(item: Any, done: dict[int, Any], depth: int) -> Any:
    if isinstance(item, _Array):
        return item.array()
    if isinstance(item, dict):
        return {key: _finished(value, done, depth) for key, value in item.items()}
    return type(item)(_finished(value, done, depth) for value in item)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
