"""The required contents of Omniglot, and its files in two zip files or in a folder tree."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from supervised_reptile.datasets.untrusted.archives import read_members

DRAWINGS = 20

# (alphabet, character) -> file name -> the PNG, as bytes or by path.
Files = dict[tuple[str, str], dict[str, bytes | Path]]


@dataclasses.dataclass(frozen=True)
class Archive:
    """One of the zip files and its required contents.

    Attributes:
        name: File name without ``.zip``, and name of the one folder inside.
        size: Size in bytes.
        sha256: Checksum, in hexadecimal.
        alphabets: Number of characters of each alphabet; their folders are ``character01``,
            ``character02`` …
    """

    name: str
    size: int
    sha256: str
    alphabets: Mapping[str, int]


def _alphabets(table: str) -> dict[str, int]:
    return {name: int(count) for name, count in (entry.split(":") for entry in table.split())}


ARCHIVES = (
    Archive(
        name="images_background",
        size=9_464_212,
        sha256="ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
        alphabets=_alphabets("""
            Alphabet_of_the_Magi:20 Anglo-Saxon_Futhorc:29 Arcadian:26 Armenian:41
            Asomtavruli_(Georgian):40 Balinese:24 Bengali:46
            Blackfoot_(Canadian_Aboriginal_Syllabics):14 Braille:26 Burmese_(Myanmar):34
            Cyrillic:33 Early_Aramaic:22 Futurama:26 Grantha:43 Greek:24 Gujarati:48 Hebrew:22
            Inuktitut_(Canadian_Aboriginal_Syllabics):16 Japanese_(hiragana):52
            Japanese_(katakana):47 Korean:40 Latin:26 Malay_(Jawi_-_Arabic):40
            Mkhedruli_(Georgian):41 N_Ko:33 Ojibwe_(Canadian_Aboriginal_Syllabics):14 Sanskrit:42
            Syriac_(Estrangelo):23 Tagalog:17 Tifinagh:55
        """),
    ),
    Archive(
        name="images_evaluation",
        size=6_462_886,
        sha256="1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
        alphabets=_alphabets("""
            Angelic:20 Atemayar_Qelisayer:26 Atlantean:26 Aurek-Besh:26 Avesta:26 Ge_ez:26
            Glagolitic:45 Gurmukhi:45 Kannada:41 Keble:26 Malayalam:47 Manipuri:40 Mongolian:30
            Old_Church_Slavonic_(Cyrillic):45 Oriya:46 Sylheti:28 Syriac_(Serto):23 Tengwar:25
            Tibetan:42 ULOG:26
        """),
    ),
)

FINGERPRINT = "bd90dfc0e7a2105b"
"""Fingerprint of the data set with the official drawings."""


def find_problems(
    files: Mapping[tuple[str, str], Mapping[str, Any]], archives: Sequence[Archive] = ARCHIVES
) -> Iterator[str]:
    """Yield a phrase for everything that is missing or does not belong.

    Args:
        files: Drawings by (alphabet, character).
        archives: Expected archives.

    Yields:
        Phrases such as ``"alphabet Tifinagh has 54 of 55 characters"``.
    """
    expected = {name: n for archive in archives for name, n in archive.alphabets.items()}
    found: dict[str, set[str]] = defaultdict(set)
    for alphabet, character in files:
        found[alphabet].add(character)
    for alphabet, count in sorted(expected.items()):
        characters = {f"character{i:02d}" for i in range(1, count + 1)}
        if alphabet not in found:
            yield f"alphabet {alphabet} is missing"
        elif len(found[alphabet]) != count:
            yield f"alphabet {alphabet} has {len(found[alphabet])} of {count} characters"
        elif found[alphabet] != characters:
            yield f"alphabet {alphabet} has no {min(characters - found[alphabet])}"
        for character in sorted(found[alphabet]):
            if len(files[alphabet, character]) != DRAWINGS:
                drawn = len(files[alphabet, character])
                yield f"{alphabet}/{character} has {drawn} of {DRAWINGS} drawings"
    for alphabet in sorted(found.keys() - expected.keys()):
        yield f"{alphabet} is not an alphabet of Omniglot"


def tree_files(root: Path) -> Files:
    """List ``root/<alphabet>/<character>/*.png``, the tree that the original program creates.

    If the two archives are unzipped, each has a folder that contains its alphabets.

    TFDS stores prepared data in a version folder next to the alphabets. It has no subfolders, so
    the two cannot be confused.

    Args:
        root: Folder of the alphabets, which may be missing.

    Returns:
        Paths of the drawings, empty if there is no such tree.
    """
    files: Files = defaultdict(dict)
    unzipped = [root / archive.name for archive in ARCHIVES if (root / archive.name).is_dir()]
    for top in unzipped or [root]:
        for path in sorted(top.glob("*/*/*.png")):
            hidden = any(part.startswith(".") for part in path.relative_to(top).parts)
            if not hidden and path.is_file():  # neither a pipe nor a broken link
                files[path.parent.parent.name, path.parent.name][path.name] = path
    return files


def zip_files(path: Path, top: str) -> Files:
    """Read the drawings ``<top>/<alphabet>/<character>/*.png`` of a zip into memory (9 MB).

    Args:
        path: The archive.
        top: Name of the one folder inside.

    Returns:
        PNG files as bytes; other files in the archive are ignored.

    Raises:
        DatasetError: The archive is damaged or unsafe.
    """
    files: Files = defaultdict(dict)
    for member, content in read_members(path, ".png"):
        parts = member.parts
        hidden = any(part.startswith(".") for part in parts)
        if len(parts) == 4 and parts[0] == top and not hidden:
            files[parts[1], parts[2]][parts[3]] = content
    return files
