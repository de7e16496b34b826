"""Read zip archives that are not trusted: damaged and unsafe ones are refused."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from supervised_reptile.errors import DatasetError


def read_members(path: Path, suffix: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Read the files of a zip archive into memory, after a check of every name in it.

    Nothing is ever written to the names the members bear; an archive with a name that could
    lead outside a target folder is refused all the same, as not what it claims to be.

    Args:
        path: The archive.
        suffix: Ending of the names to read, such as ``".png"``.

    Yields:
        Name and content of each file, in the order of the archive.

    Raises:
        DatasetError: If the file is absent, is no complete zip (a truncated one has lost its table
            of contents, which stands at the end), holds an absolute path, a ``..`` or a link, or
            if a member's checksum is wrong.
    """
    if not path.is_file():
        raise DatasetError(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if reason := _why_unsafe(member):
                    raise DatasetError(f"{path} is refused: member {member.filename!r} {reason}")
            for member in archive.infolist():
                if not member.is_dir() and member.filename.endswith(suffix):
                    yield PurePosixPath(member.filename), archive.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise DatasetError(f"{path} is truncated, damaged or not a zip: {error}") from error


def _why_unsafe(member: zipfile.ZipInfo) -> str | None:
    name = member.filename
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "has an absolute path"
    if ".." in PurePosixPath(name.replace("\\", "/")).parts:
        return "would be written outside the target folder"
    if stat.S_ISLNK(member.external_attr >> 16):  # the upper half holds the Unix file mode
        return "is a symbolic link"
    return None
