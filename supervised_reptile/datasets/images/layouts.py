"""The layouts in which Mini-ImageNet is distributed, besides the authors' folders."""

from __future__ import annotations

import csv
import os
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from supervised_reptile.datasets.images.decoding import Picture
from supervised_reptile.datasets.images.sources import SPLITS, ClassFolders, Contents, Source
from supervised_reptile.datasets.untrusted.archives import check_tar_member
from supervised_reptile.datasets.untrusted.guards import LARGEST_PICTURE, reading, why
from supervised_reptile.datasets.untrusted.pickles import load_arrays
from supervised_reptile.errors import DatasetError

IMAGENET_TAR = "ILSVRC2012_img_train.tar"
_CLASS = re.compile(r"n\d{8}")


class ListedImages(Source):
    """Ravi & Larochelle's layout: ``images/*.jpg`` and lists of them.

    The lists are ``train.csv``, ``val.csv`` and ``test.csv``. They start with the line
    ``filename,label`` and have one such line per picture.
    """

    layout = "lists"

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether there are a folder of images and a list."""
        return (root / "images").is_dir() and bool(_lists_at(root))

    def files(self) -> Iterator[Path | str]:
        """Return the lists, and the existing pictures that they name."""
        yield from _lists_at(self.root).values()
        folder = self.root / "images"
        with os.scandir(folder) as entries:
            there = {entry.name for entry in entries}
        for classes in self.contents().values():
            for names in classes.values():
                yield from (f"{folder}{os.sep}{name}" for name in names if name in there)

    def contents(self) -> Contents:
        """Return the pictures that the lists name."""
        return {split: _read_list(path) for split, path in _lists_at(self.root).items()}

    def pictures(self) -> Iterator[tuple[str, str, str, Picture]]:
        """Yield pictures by path; reading reports missing ones."""
        for split, classes in self.contents().items():
            for class_name, names in classes.items():
                for name in names:
                    yield split, class_name, name, self.root / "images" / name


class Pickles(Source):
    """Ren et al.'s layout: ``mini-imagenet-cache-{train,val,test}.pkl``, pictures of 84×84 pixels.

    Each is a dict of ``image_data``, uint8 [N, 84, 84, 3], and ``class_dict``, the rows by class.

    Args:
        root: The folder.
        paths: Pickle of each split, if they have other names.
    """

    layout = "pickles"

    def __init__(self, root: Path, paths: Mapping[str, Path] | None = None) -> None:
        super().__init__(root)
        self._paths = _pickles_at(root) if paths is None else paths

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether one of the three pickles exists."""
        return bool(_pickles_at(root))

    def files(self) -> list[Path]:
        """Return the pickles."""
        return list(self._paths.values())

    def contents(self) -> Contents:
        """Return the classes of each pickle; pictures are named by their row numbers."""
        found: Contents = {}
        for split in SPLITS:
            if split in self._paths:
                classes, _ = self._read(split)
                found[split] = {
                    name: [str(row) for row in rows] for name, rows in sorted(classes.items())
                }
        return found

    def pictures(self) -> Iterator[tuple[str, str, str, Picture]]:
        """Yield pictures as arrays, with one pickle in memory at a time."""
        for split in self._paths:
            classes, images = self._read(split)
            for class_name, rows in classes.items():
                for row in rows:
                    yield split, class_name, str(row), images[row]
            del images

    def _read(self, split: str) -> tuple[dict[str, list[int]], np.ndarray]:
        path = self._paths[split]
        data = load_arrays(path)
        try:
            data = {_text(key): value for key, value in data.items()}
            images = data["image_data"]
            classes = {_text(k): [int(r) for r in rows] for k, rows in data["class_dict"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{path} has not image_data and class_dict in it") from error
        used = [row for rows in classes.values() for row in rows]
        if (
            not isinstance(images, np.ndarray)
            or images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[-1] != 3
        ):
            raise DatasetError(f"{path}: image_data must be uint8 [N, height, width, 3]")
        if len(set(used)) != len(used) or not set(used) <= set(range(len(images))):
            raise DatasetError(f"{path}: class_dict has rows that image_data has not, or one twice")
        return classes, images


class ImageNetTar(Source):
    """``ILSVRC2012_img_train.tar``, an archive with one archive per class, and the split's lists.

    The lists are Ravi & Larochelle's, in which the 8 digits after the class are the position of the
    picture in its class, counted from 1 in the order of the pictures' numbers. Lists of ImageNet's
    own names, such as ``n01532829_1205.JPEG``, also work, including the authors'
    ``train/n01532829.csv``.
    """

    layout = "imagenet"

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether the archive exists."""
        return (root / IMAGENET_TAR).is_file()

    def files(self) -> Iterator[Path]:
        """Return the archive and the lists."""
        yield self.root / IMAGENET_TAR
        for paths in self._lists().values():
            yield from paths

    def contents(self) -> Contents:
        """Return the pictures that the lists name."""
        found: Contents = {}
        for split, paths in self._lists().items():
            classes: dict[str, list[str]] = defaultdict(list)
            for path in paths:
                for class_name, names in _read_list(path).items():
                    classes[class_name] += names
            found[split] = dict(sorted(classes.items()))
        if not found:
            raise DatasetError(
                f"{self.root} has {IMAGENET_TAR} but not the lists of the split: put train.csv, "
                "val.csv and test.csv next to it"
            )
        return found

    def pictures(self) -> Iterator[tuple[str, str, str, Picture]]:
        """Yield pictures as bytes, in one pass over the archive that skips other classes."""
        wanted = {
            class_name: (split, names)
            for split, classes in self.contents().items()
            for class_name, names in classes.items()
        }
        path, left = self.root / IMAGENET_TAR, set(wanted)
        size = path.stat().st_size
        with reading(path, "tar"), tarfile.open(path, "r:") as outer:
            while left and (member := outer.next()) is not None:
                check_tar_member(path, member, size)
                class_name = member.name.removesuffix(".tar")
                if class_name in wanted and class_name not in left:
                    raise DatasetError(f"{path} is refused: member {member.name!r} is there twice")
                if class_name not in left or not member.isfile():
                    continue
                split, names = wanted[class_name]
                with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                    for name, content in _read_class(path, inner, names):
                        yield split, class_name, name, content
                left.remove(class_name)
                # tarfile would keep them all, which its stub does not say.
                outer.members = []  # type: ignore[attr-defined]

    def _lists(self) -> dict[str, list[Path]]:
        one_each = {split: [path] for split, path in _lists_at(self.root).items()}
        if one_each:
            return one_each
        found = {}
        for split, names in SPLITS.items():
            for name in names:
                if paths := sorted((self.root / name).glob("n*.csv")):
                    found[split] = paths
        return found


def _read_class(
    path: Path, archive: tarfile.TarFile, names: list[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield the listed pictures of a class that are in its archive, in the archive's order."""
    members = archive.getmembers()
    for member in members:
        check_tar_member(path, member, LARGEST_PICTURE)
    members = [member for member in members if member.isfile()]
    if len({member.name for member in members}) != len(members):
        raise DatasetError(f"{path} is refused: two members of a class have one name")
    numbered = sorted(
        (int(match[1]), member.name)
        for member in members
        if (match := re.fullmatch(r"n\d{8}_(\d+)\.JPEG", member.name))
    )
    places = {f"{place:08d}": name for place, (_, name) in enumerate(numbered, start=1)}
    listed = {places.get(Path(name).stem[9:], name): name for name in names}
    for member in members:
        if member.name in listed and (file := archive.extractfile(member)):
            yield listed[member.name], file.read()


def _lists_at(root: Path) -> dict[str, Path]:
    """Return those of ``train.csv``, ``val.csv`` and ``test.csv`` that exist."""
    return {
        split: path
        for split, names in SPLITS.items()
        for name in reversed(names)
        if (path := root / f"{name}.csv").is_file()
    }


def _pickles_at(root: Path) -> dict[str, Path]:
    return {
        split: path
        for split, names in SPLITS.items()
        for name in reversed(names)
        if (path := root / f"mini-imagenet-cache-{name}.pkl").is_file()
    }


def _read_list(path: Path) -> dict[str, list[str]]:
    """Read sorted pictures by class, from ``filename,label`` lines or ImageNet's own names."""
    classes: dict[str, list[str]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.reader(file):
                if not row or row == ["filename", "label"]:
                    continue
                name = row[0]
                label = row[1] if len(row) > 1 and _CLASS.fullmatch(row[1]) else name[:9]
                if not _CLASS.fullmatch(label) or not name or Path(name).name != name:
                    raise ValueError(f"unexpected line {','.join(row)!r}")
                classes[label].append(name)
    except OSError as error:
        raise DatasetError(f"{path} could not be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise DatasetError(f"{path} is not a list of pictures: {why(error)}") from error
    return {name: sorted(set(classes[name])) for name in sorted(classes)}


def _text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key


LAYOUTS: tuple[type[Source], ...] = (ImageNetTar, Pickles, ListedImages, ClassFolders)
"""Layouts of Mini-ImageNet, in the order in which they are tried."""
