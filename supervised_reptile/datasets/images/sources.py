"""Sources of photographs: what is in them, and how their pictures are read.

A source is a folder in one of several layouts; each layout is a class with the same methods. This
module has the plain one, of folders or zip files.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from supervised_reptile.datasets.images.decoding import SUFFIXES, Picture, other_format
from supervised_reptile.datasets.untrusted.archives import is_hidden, member_names, read_members

SPLITS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
"""Possible names of the folder or file of each split."""

# Sorted names of the pictures, by split and class.
Contents = dict[str, dict[str, list[str]]]


class Source(abc.ABC):
    """Photographs in one layout.

    Args:
        root: The folder.

    Attributes:
        layout: The layout in a word.
        left_out: Endings of the files among the pictures that are no images, and their number.
        passed_over: Why something else is not used -> where it is: broken links, say.
        other_formats: Images of formats that are not read. All three are known once ``contents``
            was called.
    """

    layout: str

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out: Counter[str] = Counter()
        self.passed_over: dict[str, list[str]] = defaultdict(list)
        self.other_formats: list[str] = []

    @classmethod
    @abc.abstractmethod
    def is_at(cls, root: Path) -> bool:
        """Whether a folder has this layout, complete or not."""

    @abc.abstractmethod
    def files(self) -> Iterable[Path | str]:
        """Return every file that is read; their sizes and times show whether the source changed."""

    @abc.abstractmethod
    def contents(self) -> Contents:
        """What should be in the source, by split and class.

        Raises:
            DatasetError: A file of the source that states this is missing or damaged.
        """

    @abc.abstractmethod
    def pictures(self) -> Iterator[tuple[str, str, str, Picture]]:
        """Yield every existing picture, as split, class, name and picture, in the cheapest order.

        Raises:
            DatasetError: If a file of the source is damaged or unsafe.
        """

    def fingerprint(self) -> str:
        """Return the hexadecimal SHA-256 of the names, sizes and times of all files."""
        # Plain strings: there may be 60,000 files, and every start of a run checks them.
        digest, root = hashlib.sha256(self.layout.encode()), len(os.fspath(self.root))
        for path in sorted(os.fspath(file) for file in self.files()):
            try:
                stat = os.stat(path)  # noqa: PTH116
            except OSError:  # e.g. a broken link: its picture is missing
                stat = os.lstat(path)
            line = f"\0{path[root:].lstrip(os.sep)}\0{stat.st_size}\0{stat.st_mtime_ns}"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()


@dataclasses.dataclass
class _Tree:
    """The contents of a split's folder or zip file, by paths inside it.

    Attributes:
        files: Parts of the path of every file: class and name, if it is where it should be.
        folders: Names of the folders, which are the classes.
        odd: Path of what is neither file nor folder -> what it is.
        top: Folders around those of the classes, which a zip file may have.
    """

    files: list[tuple[str, ...]] = dataclasses.field(default_factory=list)
    folders: list[str] = dataclasses.field(default_factory=list)
    odd: dict[str, str] = dataclasses.field(default_factory=dict)
    top: tuple[str, ...] = ()

    def classes(self) -> dict[str, list[str]]:
        """Return the pictures of each class, sorted by name, including empty classes."""
        found: dict[str, list[str]] = {name: [] for name in sorted(self.folders)}
        for parts in self.files:
            if len(parts) == 2 and _is_picture(parts[1]):
                found[parts[0]].append(parts[1])
        return {name: sorted(names) for name, names in found.items()}


class ClassFolders(Source):
    """``{train,val,test}/<class>/*.JPEG``, as the authors' program creates it.

    A zip file of the same name may replace a split's folder, such as ``train.zip``, with or
    without the split's folder inside; the same rule holds for both. Any number of classes, any of
    the image formats that are read.
    """

    layout = "folders"

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether train and test exist."""
        return {"train", "test"} <= _splits_at(root).keys()

    def files(self) -> Iterator[Path | str]:
        """Return the pictures, or the zip files that contain them."""
        for split, place in _splits_at(self.root).items():
            if place.is_dir():
                for class_name, names in _tree_of(split, place).classes().items():
                    yield from (f"{place}{os.sep}{class_name}{os.sep}{name}" for name in names)
            else:
                yield place

    def contents(self) -> Contents:
        """Return the pictures of every class, sorted by name."""
        self.left_out.clear()
        self.passed_over.clear()
        self.other_formats.clear()
        used = _splits_at(self.root)
        for place in _all_places(self.root):
            if place not in used.values():
                self.passed_over["of which there is another"].append(place.name)
        found: Contents = {}
        for split, place in used.items():
            tree = _tree_of(split, place)
            found[split] = tree.classes()
            self._note(tree, place)
        for notes in (*self.passed_over.values(), self.other_formats):
            notes.sort()
        return found

    def pictures(self) -> Iterator[tuple[str, str, str, Picture]]:
        """Yield pictures in folders by path, those in zip files as bytes."""
        for split, place in _splits_at(self.root).items():
            tree = _tree_of(split, place)
            if place.is_dir():
                for class_name, names in tree.classes().items():
                    for name in names:
                        yield split, class_name, name, place / class_name / name
                continue
            for member, content in read_members(place, tuple(SUFFIXES)):
                parts = member.parts[len(tree.top) :]
                if len(parts) == 2 and member.parts[: len(tree.top)] == tree.top:
                    yield split, *parts, content

    def _note(self, tree: _Tree, place: Path) -> None:
        """Record the unused files and the reasons."""
        for path, what in tree.odd.items():
            self.passed_over[what].append(f"{place.name}/{path}")
        for parts in tree.files:
            suffix = _suffix(parts[-1])
            path = "/".join((place.name, *parts))
            if not _is_picture(parts[-1]):
                if len(parts) == 2 and (kind := other_format(suffix)):
                    self.other_formats.append(f"{path} ({kind})")
                elif len(parts) >= 2:
                    self.left_out[suffix or "(none)"] += 1
            elif len(parts) > 2:
                self.passed_over["images in subfolders of classes"].append(path)
            elif len(parts) < 2:
                self.passed_over["images outside the folders of classes"].append(path)


def _splits_at(root: Path) -> dict[str, Path]:
    """Return the folder or zip file to use for each split: the first that exists."""
    found: dict[str, Path] = {}
    for place in _all_places(root):
        split = next(s for s, names in SPLITS.items() if place.stem in names)
        found.setdefault(split, place)
    return found


def _all_places(root: Path) -> Iterator[Path]:
    """Return every folder and zip file of a split, in order of preference."""
    for names in SPLITS.values():
        for name in names:
            if (root / name).is_dir():
                yield root / name
            if (root / f"{name}.zip").is_file():
                yield root / f"{name}.zip"


def _tree_of(split: str, place: Path) -> _Tree:
    return _folder_tree(place) if place.is_dir() else _zip_tree(split, place)


def _folder_tree(place: Path) -> _Tree:
    tree = _Tree()
    for entry in _entries(place):
        kind = _kind(entry)
        if kind == "file":
            tree.files.append((entry.name,))
        elif kind != "folder":
            tree.odd[entry.name] = kind
        else:
            tree.folders.append(entry.name)
            _add_class(tree, place, entry.name)
    return tree


def _add_class(tree: _Tree, place: Path, class_name: str) -> None:
    for entry in _entries(place / class_name):
        kind, path = _kind(entry), f"{class_name}/{entry.name}"
        if kind == "file":
            tree.files.append((class_name, entry.name))
        elif kind != "folder":
            tree.odd[path] = kind
        else:
            if _is_picture(entry.name):
                tree.odd[path] = "folders with the name of an image"
            for below, _, names in os.walk(entry.path):
                inner = Path(below).relative_to(place).parts
                tree.files += [(*inner, name) for name in names if not _hidden(name)]


def _zip_tree(split: str, place: Path) -> _Tree:
    files, folders = member_names(place)
    pictures = [path.parts for path in files if _is_picture(path.name)]
    top: tuple[str, ...] = ()
    for depth, names in enumerate(zip(*(parts[:-1] for parts in pictures), strict=False), start=1):
        if len(set(names)) > 1:
            break
        if names[0] in SPLITS[split] and any(len(parts) >= depth + 2 for parts in pictures):
            top = pictures[0][:depth]
    inside = [path.parts[len(top) :] for path in files if path.parts[: len(top)] == top]
    classes = {parts[0] for parts in inside if len(parts) > 1}
    below = [path.parts[len(top) :] for path in folders if path.parts[: len(top)] == top]
    return _Tree(inside, sorted(classes | {parts[0] for parts in below if parts}), {}, top)


def _entries(place: Path) -> list[os.DirEntry[str]]:
    with os.scandir(place) as entries:
        return sorted((e for e in entries if not _hidden(e.name)), key=lambda e: e.name)


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:  # circular links
        return "broken links"
    return "broken links" if entry.is_symlink() else "special files"


def _is_picture(name: str) -> bool:
    return _suffix(name) in SUFFIXES


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def _hidden(name: str) -> bool:
    return is_hidden(PurePosixPath(name))
