"""Read untrusted zip and tar archives; refuse damaged and unsafe ones."""

from __future__ import annotations

import contextlib
import stat
import struct
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from supervised_reptile.datasets.untrusted.guards import LARGEST_PICTURE, reading
from supervised_reptile.errors import DatasetError

# Images are already compressed. An archive that claims a far larger content is an attack.
_LARGEST_EXPANSION = 50
_ALWAYS_ALLOWED = 2**30
_ENCRYPTED = 1  # bit of a member's flags
_LARGEST_END = 56 + 20 + 22 + 2**16  # bytes: zip64 end record, its locator, end record, comment


def member_names(path: Path) -> tuple[list[PurePosixPath], list[PurePosixPath]]:
    """Return the names of the files and folders in a zip archive, without hidden ones.

    Args:
        path: The archive.

    Raises:
        DatasetError: See :func:`read_members`.
    """
    with _checked_archive(path) as archive:
        members = [m for m in archive.infolist() if not is_hidden(PurePosixPath(m.filename))]
        return (
            [PurePosixPath(member.filename) for member in members if not member.is_dir()],
            [PurePosixPath(member.filename) for member in members if member.is_dir()],
        )


def read_members(
    path: Path, suffix: str | tuple[str, ...]
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Read the files of a zip archive into memory, after checking every name in it.

    Nothing is ever written under the names of the members. An archive with a name that could lead
    outside a target folder is refused anyway, because a valid archive has none.

    Args:
        path: The archive.
        suffix: Suffixes of the names to read, such as ``".png"``, in lower case.

    Yields:
        Name and content of each file, in the order of the archive, without hidden files.

    Raises:
        DatasetError: The file is missing or is not a complete zip file (a truncated one has no
            table of contents, which is at the end), lists fewer members than it states, contains
            an absolute path, a ``..``, a link, an empty or repeated name or an encrypted member,
            claims a far larger content, or has a member with a wrong checksum.
    """
    with _checked_archive(path) as archive:
        for member in archive.infolist():
            name = PurePosixPath(member.filename)
            if member.is_dir() or is_hidden(name) or not name.name.lower().endswith(suffix):
                continue
            if member.file_size > LARGEST_PICTURE:
                raise _refused(path, member.filename, f"has {member.file_size:,} bytes")
            yield name, _read(archive, member)


def is_hidden(name: PurePosixPath) -> bool:
    """Whether a member is hidden, or one of the notes that macOS adds to an archive."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.parts)


@contextlib.contextmanager
def _checked_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file():
        raise DatasetError(f"{path} does not exist")
    with reading(path, "zip"), zipfile.ZipFile(path) as archive:
        promised, found = _promised_members(path), len(archive.infolist())
        if promised != found:
            raise DatasetError(
                f"{path} is damaged: its table of contents lists {found:,} of {promised:,} members"
            )
        names: Counter[PurePosixPath] = Counter()
        for member in archive.infolist():
            if reason := why_unsafe(member.filename) or _why_refused(member):
                raise _refused(path, member.filename, reason)
            _check_name(archive, member)
            if not member.is_dir():
                names[PurePosixPath(member.filename)] += 1
        for name, count in names.most_common(1):
            if count > 1:
                raise _refused(path, str(name), f"is there {count} times")
        expanded, size = sum(m.file_size for m in archive.infolist()), path.stat().st_size
        if expanded > max(_ALWAYS_ALLOWED, _LARGEST_EXPANSION * size):
            raise DatasetError(
                f"{path} is refused: its {size:,} bytes would expand to {expanded:,} bytes"
            )
        yield archive


def _promised_members(path: Path) -> int:
    """Return the number of members at the end of a zip file, which ``zipfile`` does not check.

    It is 2 bytes at offset 10 of the end record; from 65,535 on, 8 bytes at offset 32 of the zip64
    end record (PKWARE's APPNOTE.TXT, 4.3.14 and 4.3.16).
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LARGEST_END))
        end = file.read()
    (count,) = struct.unpack_from("<H", end, end.rfind(b"PK\5\6") + 10)
    if count == 0xFFFF and (start := end.rfind(b"PK\6\6")) >= 0:
        (count,) = struct.unpack_from("<Q", end, start + 32)
    return count


def _check_name(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Check that the table of contents and the member itself agree on the name.

    Otherwise a damaged name could make an image look like a folder or another kind of file, which
    is not read. ``zipfile`` compares the names when it opens a member.

    Raises:
        BadZipFile: They differ.
    """
    with contextlib.suppress(NotImplementedError):  # a compression that matters only if it is read
        archive.open(member).close()


def _why_refused(member: zipfile.ZipInfo) -> str | None:
    if stat.S_ISLNK(member.external_attr >> 16):  # the upper half: Unix file mode
        return "is a symbolic link"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    return None


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Return the content, read in pieces: compressed data may exceed the stated size."""
    # LZMA and bzip2 expand all of their input at once, so use small pieces.
    piece = 2**16 if member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else 2**12
    with archive.open(member) as file:
        return b"".join(iter(lambda: file.read(piece), b""))


def check_tar_member(path: Path, member: tarfile.TarInfo, largest: int) -> None:
    """Refuse a member of a tar archive that is unsafe to read.

    Args:
        path: The archive, for the message.
        member: The member.
        largest: Maximum number of bytes.

    Raises:
        DatasetError: The name is unsafe or empty, or the member is a link, a device or too large.
    """
    reason = why_unsafe(member.name)
    if reason is None and (not (member.isfile() or member.isdir()) or member.issparse()):
        reason = "is a link or a device" if not member.issparse() else "has holes"
    if reason is None and not 0 <= member.size <= largest:
        reason = f"has {member.size:,} bytes"
    if reason is not None:
        raise _refused(path, member.name, reason)


def _refused(path: Path, name: str, reason: str) -> DatasetError:
    return DatasetError(f"{path} is refused: member {name!r} {reason}")


def why_unsafe(name: str) -> str | None:
    """Return why a member's name is unsafe, or ``None``."""
    if not PurePosixPath(name).name and ".." not in name:
        return "has an absolute path" if name.startswith("/") else "has no name"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "has an absolute path"
    if ".." in PurePosixPath(name.replace("\\", "/")).parts:
        return "would be written outside the target folder"
    return None
