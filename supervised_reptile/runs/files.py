"""Write files completely or not at all, and read them with one kind of error."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from supervised_reptile.errors import RunError

_DISK_ERRORS = tuple(
    os.strerror(number)
    for number in (
        *(errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES),
        *(errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
        *(errno.ENAMETOOLONG, errno.EMFILE, errno.ESTALE),
    )
)
_LONGEST_INTEGER = 19  # digits of an int64; nothing of ours is longer


def reason_of(error: BaseException) -> str:
    """Say in a few words what went wrong with a file, without a library's own wording."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    for reason in _DISK_ERRORS:
        if reason.lower() in text.lower():
            return reason
    # TensorFlow adds the names of its operations and of its source files.
    text = re.sub(r"\s*(\[Op:[^]]*\]|\[\[[^]]*\]\]|\{\{[^}]*\}\}|\(from [^)]*\.cc:\d+\))", "", text)
    return text.split("; ")[-1] or type(error).__name__


@contextlib.contextmanager
def writing(path: Path, *more: type[BaseException]) -> Iterator[None]:
    """Turn errors of the operating system during writing into a ``RunError``.

    Args:
        path: The file, named in the message.
        *more: Other errors that a library may raise instead.

    Raises:
        RunError: Writing failed.
    """
    failures: tuple[type[BaseException], ...] = (OSError, *more)
    try:
        yield
    except failures as error:
        raise RunError(f"cannot write {path}: {reason_of(error)}") from error


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a killed process leaves either the old or the new one.

    Raises:
        RunError: The file cannot be written. The old one is intact.
    """
    part = path.with_name(path.name + ".part")
    with writing(path):
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a complete CSV file; floats have six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row])
    write_whole(path, text.getvalue())


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        RunError: The path is not a file, cannot be read, or is not text.
    """
    try:
        if not path.is_file():  # reading a pipe would block forever
            raise RunError(
                f"cannot read {path}: {'not a file' if path.exists() else 'no such file'}"
            )
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"cannot read {path}: not text in UTF-8") from error
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason_of(error)}") from error


def read_json(path: Path) -> Any:
    """Return the plain values of a JSON file.

    Raises:
        RunError: The file cannot be read, is not JSON, or contains numbers out of range.
    """
    text = read_text(path)

    def integer(digits: str) -> int:
        if len(digits) > _LONGEST_INTEGER + 1:
            refuse(f"{digits[:12]}…")
        return int(digits)

    def number(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse(digits)

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"a number out of range: {constant}")

    try:
        return json.loads(text, parse_int=integer, parse_float=number, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise RunError(f"cannot read {path}: not JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RunError(f"cannot read {path}: {reason}") from error


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so a new one can replace it; return its new path."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with writing(aside):
        path.rename(aside)
    return aside
