"""Read zip archives that are not trusted: damaged and unsafe ones are refused."""

from __future__ import annotations

import contextlib
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from supervised_reptile.errors import DatasetError


def member_names(path: Path) -> list[PurePosixPath]:
    """Names of the files of a zip archive, in its order; hidden ones are left out.

    Args:
        path: The archive.

    Raises:
        DatasetError: As :func:`read_members`.
    """
    with _checked_archive(path) as archive:
        return [PurePosixPath(member.filename) for member in _files(archive)]


def read_members(
    path: Path, suffix: str | tuple[str, ...]
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Read the files of a zip archive into memory, after a check of every name in it.

    Nothing is ever written to the names the members bear; an archive with a name that could
    lead outside a target folder is refused all the same, as not what it claims to be.

    Args:
        path: The archive.
        suffix: Endings of the names to read, such as ``".png"``, in lower case.

    Yields:
        Name and content of each file, in the order of the archive; hidden ones are left out.

    Raises:
        DatasetError: If the file is absent, is no complete zip (a truncated one has lost its table
            of contents, which stands at the end), holds an absolute path, a ``..`` or a link, or
            if a member's checksum is wrong.
    """
    with _checked_archive(path) as archive:
        for member in _files(archive):
            if member.filename.lower().endswith(suffix):
                yield PurePosixPath(member.filename), archive.read(member)


@contextlib.contextmanager
def _checked_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file():
        raise DatasetError(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if reason := why_unsafe(member.filename):
                    raise DatasetError(f"{path} is refused: member {member.filename!r} {reason}")
                if stat.S_ISLNK(member.external_attr >> 16):  # the upper half: Unix file mode
                    raise DatasetError(
                        f"{path} is refused: member {member.filename!r} is a symbolic link"
                    )
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise DatasetError(f"{path} is truncated, damaged or not a zip: {error}") from error


def _files(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [
        member
        for member in archive.infolist()
        if not member.is_dir()
        and not any(part.startswith(".") for part in PurePosixPath(member.filename).parts)
    ]


def why_unsafe(name: str) -> str | None:
    """Why a member's name must not be trusted, or ``None``."""
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "has an absolute path"
    if ".." in PurePosixPath(name.replace("\\", "/")).parts:
        return "would be written outside the target folder"
    return None
