"""What is said, in one line, when a file from outside cannot be read."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from supervised_reptile.errors import DatasetError

LARGEST_PICTURE = 256 * 2**20
"""Bytes of an image file that are read at most, wherever it stands."""


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Refuse a damaged file, whatever error its bytes raise in the library that reads it.

    Args:
        path: The file.
        kind: What it should be: ``"zip"``.

    Raises:
        DatasetError: In place of every other error.
    """
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:  # damaged bytes may raise anything at all
        # Python seeks where the bytes say, so that EINVAL is damage, not the disk's fault.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise DatasetError(f"{path} could not be read: {error.strerror}") from error
        raise DatasetError(f"{path} is truncated, damaged or not a {kind}: {why(error)}") from error


@contextlib.contextmanager
def files_of(place: Path) -> Iterator[None]:
    """Refuse a folder in which something cannot be read, is a link to itself or has gone.

    Args:
        place: The folder, named where the error names no file.

    Raises:
        DatasetError: In place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        name = error.filename if error.filename is not None else place
        raise DatasetError(f"{name} could not be read: {error.strerror or error}") from error


def why(error: BaseException) -> str:
    """An error's message in at most 160 characters, or its name if it has none."""
    return " ".join(str(error).split())[:160] or type(error).__name__
