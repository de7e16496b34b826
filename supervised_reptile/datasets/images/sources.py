"""Sources of photographs: what is in them, and how their pictures are read.

A source is a folder in one of several layouts; each layout is a class with the same methods. This
module has the plain one, of folders or zip files.
"""

from __future__ import annotations

import abc
import functools
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from supervised_reptile.datasets.untrusted.archives import member_names, read_members

SPLITS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
"""Split -> the names that a folder or file of it may bear."""

# An encoded picture by path or as bytes, or a decoded one, uint8 [height, width, 3].
Picture = Path | bytes | np.ndarray
# Split -> class -> names of its pictures, all in order.
Contents = dict[str, dict[str, list[str]]]


class Source(abc.ABC):
    """Photographs in one layout.

    Args:
        root: The folder.

    Attributes:
        layout: The layout in a word.
        left_out: Endings of files beside the pictures that Pillow does not read, and their
            number; known once `contents` was called.
    """

    layout: str

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out: Counter[str] = Counter()

    @classmethod
    @abc.abstractmethod
    def is_at(cls, root: Path) -> bool:
        """Whether a folder has this layout, complete or not."""

    @abc.abstractmethod
    def files(self) -> Iterable[Path | str]:
        """Every file that is read; their sizes and times tell whether the source has changed."""

    @abc.abstractmethod
    def contents(self) -> Contents:
        """What should be in the source, by split and class.

        Raises:
            DatasetError: If it cannot be told, as a file of the source is missing or damaged.
        """

    @abc.abstractmethod
    def pictures(self) -> Iterator[tuple[str, str, str, Picture]]:
        """Every picture that is there, as split, class, name and picture, in the cheapest order.

        Raises:
            DatasetError: If a file of the source is damaged or unsafe.
        """

    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes and modification times of all files, in hexadecimal."""
        # Plain strings: there may be 60,000 files, and every start of a run comes by here.
        digest, root = hashlib.sha256(self.layout.encode()), len(os.fspath(self.root))
        for path in sorted(map(os.fspath, self.files())):
            stat = os.stat(path)  # noqa: PTH116
            line = f"\0{path[root:].lstrip(os.sep)}\0{stat.st_size}\0{stat.st_mtime_ns}"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _is_picture(self, name: str) -> bool:
        """Whether a file's name is a picture's; counts what is left out."""
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
        if suffix not in _suffixes():
            self.left_out[suffix or "(none)"] += 1
            return False
        return True


class ClassFolders(Source):
    """``{train,val,test}/<class>/*.JPEG``, as the authors' program makes it.

    In place of a split's folder a zip file of that name may stand, such as ``train.zip``, with or
    without the split's folder inside. Any number of classes, any image format that Pillow reads.
    """

    layout = "folders"

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether train and test are there."""
        return {"train", "test"} <= _splits_at(root).keys()

    def files(self) -> Iterator[Path | str]:
        """The pictures, or the zip files that hold them."""
        for place in _splits_at(self.root).values():
            if place.is_dir():
                for class_name, names in self._folder_classes(place).items():
                    yield from (f"{place}{os.sep}{class_name}{os.sep}{name}" for name in names)
            else:
                yield place

    def contents(self) -> Contents:
        """The pictures of every class, sorted by name."""
        self.left_out.clear()
        found: Contents = {}
        for split, place in _splits_at(self.root).items():
            if place.is_dir():
                found[split] = self._folder_classes(place)
                continue
            classes = defaultdict(list)
            for member in member_names(place):
                if member.parent.name and self._is_picture(member.name):
                    classes[member.parent.name].append(member.name)
            found[split] = {name: sorted(classes[name]) for name in sorted(classes)}
        return found

    def pictures(self) -> Iterator[tuple[str, str, str, Picture]]:
        """Those in folders by path, those in zip files as bytes."""
        for split, place in _splits_at(self.root).items():
            if place.is_dir():
                for class_name, names in self._folder_classes(place).items():
                    for name in names:
                        yield split, class_name, name, place / class_name / name
            else:
                for member, content in read_members(place, tuple(_suffixes())):
                    yield split, member.parent.name, member.name, content

    def _folder_classes(self, place: Path) -> dict[str, list[str]]:
        with os.scandir(place) as entries:
            classes = sorted(e.name for e in entries if e.is_dir() and not _hidden(e.name))
        found = {}
        for class_name in classes:
            with os.scandir(place / class_name) as entries:
                names = [e.name for e in entries if not _hidden(e.name) and e.is_file()]
            found[class_name] = sorted(name for name in names if self._is_picture(name))
        return found


def _splits_at(root: Path) -> dict[str, Path]:
    """The folder or zip file of each split that is there."""
    found = {}
    for split, names in SPLITS.items():
        for name in names:
            for path, there in ((root / name, Path.is_dir), (root / f"{name}.zip", Path.is_file)):
                if split not in found and there(path):
                    found[split] = path
    return found


def _hidden(name: str) -> bool:
    return name.startswith(".")


@functools.cache
def _suffixes() -> frozenset[str]:
    """Endings of what Pillow reads by itself; PostScript would be run by another program."""
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in known.items() if kind in FORMATS)


Image.init()
FORMATS = tuple(sorted(set(Image.OPEN) - {"EPS"}))
"""Image formats that are read."""
