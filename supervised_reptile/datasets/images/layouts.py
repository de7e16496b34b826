"""The layouts in which Mini-ImageNet goes round, beside the authors' own folders."""

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
    """Ravi & Larochelle's: ``images/*.jpg``, listed by ``train.csv``, ``val.csv``, ``test.csv``.

    The lists have a line ``filename,label`` at the top and one such line for each picture.
    """

    layout = "lists"

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether there is a folder of images and a list."""
        return (root / "images").is_dir() and bool(_lists_at(root))

    def files(self) -> Iterator[Path | str]:
        """The lists, and the pictures that they name and that are there."""
        yield from _lists_at(self.root).values()
        folder = self.root / "images"
        with os.scandir(folder) as entries:
            there = {entry.name for entry in entries}
        for classes in self.contents().values():
            for names in classes.values():
                yield from (f"{folder}{os.sep}{name}" for name in names if name in there)

    def contents(self) -> Contents:
        """What the lists name."""
        return {split: _read_list(path) for split, path in _lists_at(self.root).items()}

    def pictures(self) -> Iterator[tuple[str, str, str, Picture]]:
        """By path; one that is not there is found missing when it is read."""
        for split, classes in self.contents().items():
            for class_name, names in classes.items():
                for name in names:
                    yield split, class_name, name, self.root / "images" / name


class Pickles(Source):
    """Ren et al.'s: ``mini-imagenet-cache-{train,val,test}.pkl``, pictures of 84×84 pixels.

    Each is a dict of ``image_data``, uint8 [N, 84, 84, 3], and ``class_dict``, class -> rows.

    Args:
        root: The folder.
        paths: Split -> its pickle, where they bear other names.
    """

    layout = "pickles"

    def __init__(self, root: Path, paths: Mapping[str, Path] | None = None) -> None:
        super().__init__(root)
        self._paths = _pickles_at(root) if paths is None else paths

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether one of the three is there."""
        return bool(_pickles_at(root))

    def files(self) -> list[Path]:
        """The pickles."""
        return list(self._paths.values())

    def contents(self) -> Contents:
        """The classes of each pickle; their pictures bear the numbers of their rows."""
        found: Contents = {}
        for split in SPLITS:
            if split in self._paths:
                classes, _ = self._read(split)
                found[split] = {
                    name: [str(row) for row in rows] for name, rows in sorted(classes.items())
                }
        return found

    def pictures(self) -> Iterator[tuple[str, str, str, Picture]]:
        """As arrays; one pickle is in memory at a time."""
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
    """``ILSVRC2012_img_train.tar``, an archive of one archive a class, and the split's lists.

    The lists are Ravi & Larochelle's, in which the 8 digits after the class tell the place of the
    picture in its class, counted from 1 in order of the pictures' numbers; or lists of
    ImageNet's own names, such as ``n01532829_1205.JPEG``, the authors' ``train/n01532829.csv``
    among them.
    """

    layout = "imagenet"

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether the archive is there."""
        return (root / IMAGENET_TAR).is_file()

    def files(self) -> Iterator[Path]:
        """The archive and the lists."""
        yield self.root / IMAGENET_TAR
        for paths in self._lists().values():
            yield from paths

    def contents(self) -> Contents:
        """What the lists name."""
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
                "val.csv and test.csv beside it"
            )
        return found

    def pictures(self) -> Iterator[tuple[str, str, str, Picture]]:
        """As bytes, in one pass over the archive; of other classes only the names are seen."""
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
                # tarfile keeps them all, which its stub does not say.
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
    """The named pictures of a class that are in its archive, in the archive's order."""
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
    """``train.csv``, ``val.csv`` and ``test.csv``, as far as they are there."""
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
    """Pictures by class, sorted, of ``filename,label`` lines or of ImageNet's own names."""
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
        raise DatasetError(f"{path} is no list of pictures: {why(error)}") from error
    return {name: sorted(set(classes[name])) for name in sorted(classes)}


def _text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key


LAYOUTS: tuple[type[Source], ...] = (ImageNetTar, Pickles, ListedImages, ClassFolders)
"""What Mini-ImageNet is looked for in, the surest signs first."""
