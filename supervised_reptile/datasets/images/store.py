"""Prepared photographs: their location, description and integrity."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from supervised_reptile.config.locations import FOLDER
from supervised_reptile.config.paper import DATASETS
from supervised_reptile.datasets.few_shot import FewShotDataset, Identity
from supervised_reptile.datasets.images import miniimagenet
from supervised_reptile.errors import DatasetError

VERSION = "1.0.0"  # of the folder that TFDS keeps them in
FORM = 2  # of its contents; form 1 did not state the kind of source
IMAGES, DESCRIPTION, CHECKED = "images.npy", "images.json", "checked.json"
_FIRST_FORM = {"source", "layout", "fingerprint", "image_size", "resize", "pillow", "splits"}
_FIRST_FORM |= {"sha256"}
_THIS_FORM = _FIRST_FORM | {"form", "kind", "sum"}
# A file that changed this recently may change again without a new time stamp.
_SETTLED_SECONDS = 2


@dataclasses.dataclass(frozen=True)
class ImageStore:
    """The location of a data set's photographs in one size.

    Args:
        name: Name of the data set: "miniimagenet" or "folder:NAME".
        data_dir: Folder of all data sets.
        image_size: Height and width in pixels.
        resize: Filter of Pillow, e.g. ``"nearest"``.
    """

    name: str
    data_dir: Path
    image_size: int
    resize: str

    @property
    def folder(self) -> str:
        """Name of the data set's folder."""
        return self.name.removeprefix(FOLDER)

    @property
    def kind(self) -> str:
        """``"folder"`` for a user's own images, or else the name of the data set."""
        return "folder" if self.name.startswith(FOLDER) else self.name

    @property
    def path(self) -> Path:
        """``<data_dir>/<folder>/<size>-<filter>/<version>``.

        A user's folder with the name of a published data set has a separate location.
        """
        own = "own-" if self.kind == "folder" and self.folder in DATASETS else ""
        return self.data_dir / self.folder / f"{own}{self.image_size}-{self.resize}" / VERSION


class DamagedArraysError(DatasetError):
    """Prepared arrays that are damaged or incomplete."""


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Write ``images.json``, with the checksum of ``images.npy`` and its own checksum.

    Args:
        folder: Folder of ``images.npy``.
        description: Every value of this form except ``form``, ``sha256`` and ``sum``.
    """
    values = {**description, "form": FORM, "sha256": _sha256(folder / IMAGES)}
    text = json.dumps({**values, "sum": _sum(values)}, indent=1) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def describe(store: ImageStore) -> dict[str, Any]:
    """Read ``images.json``, and compare it with ``images.npy`` and the store.

    Raises:
        DamagedArraysError: A file is missing, cut short, changed or not as described, or the
            images belong to another data set.
    """
    folder = store.path
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if description.keys() == _THIS_FORM:
            values = {key: value for key, value in description.items() if key != "sum"}
            if _sum(values) != description["sum"]:
                raise ValueError(f"{DESCRIPTION} has changed since it was written")
        elif description.keys() != _FIRST_FORM:
            raise ValueError(f"{DESCRIPTION} has unknown or missing entries")
        _map_images(folder, description)
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedArraysError(f"{folder} is damaged or cut short: {error}") from error
    except RecursionError as error:
        raise DamagedArraysError(f"{folder} is damaged: {DESCRIPTION} is nested") from error
    _check_kind(store, description)
    return description


def _check_kind(store: ImageStore, description: Mapping[str, Any]) -> None:
    kind = description.get("kind", store.kind)
    expected = (store.kind, store.image_size, store.resize)
    if (kind, description["image_size"], description["resize"]) != expected:
        raise DamagedArraysError(f"{store.path} holds other images: it was prepared for {kind}")
    if store.kind == "miniimagenet":
        contents = {
            split: {name: [""] * count for name, count in part.items()}
            for split, part in description["splits"].items()
        }
        if problems := [*miniimagenet.find_problems(contents)]:
            raise DamagedArraysError(f"{store.path} is not Mini-ImageNet: {problems[0]}")


def verify(store: ImageStore, *, always: bool = True) -> dict[str, Any]:
    """Verify the checksum of ``images.npy``, which reads the whole file.

    Args:
        store: Location of the images.
        always: If ``False``, verify only if the file has changed since the last check, according
            to its size, times and inode in ``checked.json``.

    Returns:
        The description.

    Raises:
        DamagedArraysError: The content has changed since it was written.
    """
    description = describe(store)
    path, stamp = store.path / IMAGES, _stamp(store.path / IMAGES)
    note = {"sha256": description["sha256"], "file": stamp}
    if not always:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            if json.loads((store.path / CHECKED).read_text(encoding="utf-8")) == note:
                return description
    if description["sha256"] != _sha256(path):
        raise DamagedArraysError(f"{path} is damaged: its checksum differs")
    if time.time_ns() - max(stamp[1:3]) > _SETTLED_SECONDS * 10**9:
        with contextlib.suppress(OSError):  # a read-only folder is checked every time
            temporary = store.path / f"{CHECKED}.{os.getpid()}"
            temporary.write_text(json.dumps(note), encoding="utf-8")
            temporary.replace(store.path / CHECKED)
    return description


def open_arrays(store: ImageStore, description: Mapping[str, Any]) -> FewShotDataset:
    """Open prepared arrays; images are read on demand.

    Args:
        store: Location of the images.
        description: The result of :func:`verify`.

    Returns:
        The data set, whose images are a read-only memory map.
    """
    splits = description["splits"]
    sizes = [count for part in splits.values() for count in part.values()]
    numbers = iter(range(len(sizes)))
    return FewShotDataset(
        name=store.name,
        images=_map_images(store.path, description),
        class_offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        class_names=tuple(class_name for part in splits.values() for class_name in part),
        splits={
            split: np.asarray([next(numbers) for _ in part], np.int64)
            for split, part in splits.items()
        },
        pixel_scale=1 / 255,
        identity=_identity(store, description),
    )


def _identity(store: ImageStore, description: Mapping[str, Any]) -> Identity:
    """Return the identity from the stored checksums, without reading an image."""
    splits = description["splits"]
    sizes = [count for part in splits.values() for count in part.values()]
    classes = "/".join(str(len(part)) for part in splits.values())
    text = (
        f"{store.name}, {sum(sizes):,} images of {classes} {'/'.join(splits)} classes, "
        f"{store.image_size}x{store.image_size} by {store.resize}"
    )
    content = [store.kind, store.image_size, store.resize, description["sha256"]]
    content.append([[split, [*map(list, part.items())]] for split, part in splits.items()])
    return Identity.of(text, [json.dumps(content).encode()])


def _map_images(folder: Path, description: Mapping[str, Any]) -> np.ndarray:
    """Map the images, after checking the file's header and size against the description."""
    sizes = [count for part in description["splits"].values() for count in part.values()]
    if not all(type(count) is int and count > 0 for count in sizes):
        raise ValueError(f"{DESCRIPTION} has a class without images")
    shape = (sum(sizes), description["image_size"], description["image_size"], 3)
    with (folder / IMAGES).open("rb") as file:
        try:
            np.lib.format.read_magic(file)
            written = np.lib.format.read_array_header_1_0(file)
        except Exception as error:  # damaged bytes may raise any error
            raise ValueError(f"{IMAGES} has no header") from error
        start = file.tell()
        length = os.fstat(file.fileno()).st_size
    if written != (shape, False, np.dtype(np.uint8)) or length != start + math.prod(shape):
        raise ValueError(f"{IMAGES} does not have the size that {DESCRIPTION} states")
    return np.memmap(folder / IMAGES, np.uint8, "r", start, shape)


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _sum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
