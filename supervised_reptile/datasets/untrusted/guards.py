"""One-line errors for external files that cannot be read."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from supervised_reptile.errors import DatasetError

LARGEST_PICTURE = 256 * 2**20
"""Maximum size of an image file in bytes, also inside archives."""


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Report a damaged file, whatever error its bytes raise in a library.

    Args:
        path: The file.
        kind: Expected kind of file: ``"zip"``.

    Raises:
        DatasetError: Replaces every other error.
    """
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:  # damaged bytes may raise any error
        # Python seeks to positions from the file, so EINVAL means damage, not a disk error.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise DatasetError(f"{path} could not be read: {error.strerror}") from error
        raise DatasetError(f"{path} is truncated, damaged or not a {kind}: {why(error)}") from error


@contextlib.contextmanager
def files_of(place: Path) -> Iterator[None]:
    """Report a folder whose files cannot be read, are links to themselves or are missing.

    Args:
        place: The folder, which is named if the error names no file.

    Raises:
        DatasetError: Replaces an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        name = error.filename if error.filename is not None else place
        raise DatasetError(f"{name} could not be read: {error.strerror or error}") from error


def why(error: BaseException) -> str:
    """Return an error's message in about 160 characters, or its name if it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:160].rpartition(' ')[0] or text[:160]} …"
