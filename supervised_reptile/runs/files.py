"""Files that are there whole or not at all, and are read with one kind of error."""

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
    """What went wrong with a file, in a few words: nothing of the library that reports it."""
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
    """Turn what the operating system says of a file that is written into a ``RunError``.

    Args:
        path: What the message names.
        *more: Other errors that a library raises instead.

    Raises:
        RunError: Writing failed.
    """
    failures: tuple[type[BaseException], ...] = (OSError, *more)
    try:
        yield
    except failures as error:
        raise RunError(f"cannot write {path}: {reason_of(error)}") from error


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a killed process leaves the old one or the new one.

    Raises:
        RunError: It cannot be written; the old one is intact.
    """
    part = path.with_name(path.name + ".part")
    with writing(path):
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, whole; floats with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row])
    write_whole(path, text.getvalue())


def read_text(path: Path) -> str:
    """The text of a file, in UTF-8.

    Raises:
        RunError: It is not a file, cannot be read, or is not text.
    """
    try:
        if not path.is_file():  # a pipe would wait for ever
            raise RunError(
                f"cannot read {path}: {'not a file' if path.exists() else 'no such file'}"
            )
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"cannot read {path}: not text in UTF-8") from error
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason_of(error)}") from error


def read_json(path: Path) -> Any:
    """The plain values of a JSON file.

    Raises:
        RunError: It cannot be read, is not JSON, or holds numbers that no file of ours holds.
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
    """Rename a file that is damaged, so that a new one can take its place; returns its new path."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with writing(aside):
        path.rename(aside)
    return aside
