"""Photographs as one memory-mapped array: decoded once, on all cores, then opened at once."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from supervised_reptile.config.locations import FOLDER
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.datasets.images.sources import FORMATS, Contents, Picture, Source
from supervised_reptile.errors import DatasetError

VERSION = "1.0.0"  # of the stored form
IMAGES, DESCRIPTION = "images.npy", "images.json"
_PROBLEMS_SHOWN = 5
_WAITING = 256  # pictures read but not yet decoded, at most
_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclasses.dataclass(frozen=True)
class ImageStore:
    """Where the photographs of a data set lie, in one size.

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
    def path(self) -> Path:
        """``<data_dir>/<folder>/<size>-<filter>/<version>``."""
        return self.data_dir / self.folder / f"{self.image_size}-{self.resize}" / VERSION


class DamagedArraysError(DatasetError):
    """Prepared arrays that are not whole."""


def decode(picture: Picture, size: int, resize: str) -> np.ndarray:
    """Decode a picture as the authors' program does: resize it, then make it RGB; no cropping.

    Args:
        picture: An image file by path or as bytes, or decoded pixels uint8 [height, width, 3].
            Of 16-bit images the upper 8 bits are used.
        size: Height and width wanted, in pixels.
        resize: Filter of Pillow, e.g. ``"nearest"``.

    Returns:
        uint8 [size, size, 3].

    Raises:
        ValueError: The picture is empty, damaged or no image; the message says which.
    """
    if isinstance(picture, np.ndarray):
        if picture.shape[:2] == (size, size):
            return picture
        return np.asarray(_resized(Image.fromarray(picture), size, resize))
    try:
        content = picture.read_bytes() if isinstance(picture, Path) else picture
        if not content:
            raise ValueError("is empty")
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            image.load()
            if image.mode in _16_BIT:
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if image.mode in ("I", "F"):
                raise ValueError(f"has {image.mode!r} pixels of 32 bits; 8 or 16 are read")
            return np.asarray(_resized(image, size, resize).convert("RGB"))
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except PIL.UnidentifiedImageError:
        raise ValueError("is no image that Pillow reads") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"is damaged: {error}") from error


def _resized(image: Image.Image, size: int, resize: str) -> Image.Image:
    return image.resize((size, size), Image.Resampling[resize.upper()])


def write_arrays(
    source: Source, contents: Contents, folder: Path, *, size: int, resize: str, progress: bool
) -> None:
    """Decode every picture into ``folder/images.npy``, described by ``folder/images.json``.

    The pictures are written one by one and not kept, so memory stays small.

    Args:
        source: Where they come from.
        contents: What must be there; what else there is is left out.
        folder: Where to write; should be a temporary one, as a failure leaves it half done.
        size: Height and width to store, in pixels.
        resize: Filter of Pillow.
        progress: Whether to show a progress bar.

    Raises:
        DatasetError: A picture is missing, empty or damaged. All are tried first, and the message
            has their number and the first few.
    """
    fingerprint = source.fingerprint()  # before reading: a later change is noticed then
    keys = [(s, c, n) for s, classes in contents.items() for c in classes for n in classes[c]]
    rows = {key: row for row, key in enumerate(keys)}
    problems, path = [], folder / IMAGES
    shape = (len(keys), size, size, 3)
    with (
        path.open("wb") as file,
        tqdm(total=len(keys), desc="decoding", unit="image", disable=not progress) as bar,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start, length = file.tell(), size * size * 3
        file.truncate(start + len(keys) * length)
        for key, image in _decoded(source, rows.keys(), size, resize):
            row = rows.pop(key)
            bar.update()
            if isinstance(image, ValueError):
                problems.append(f"{'/'.join(key)} {image}")
                continue
            file.seek(start + row * length)
            file.write(np.ascontiguousarray(image).data)
        file.flush()
        os.fsync(file.fileno())
    problems += [f"{'/'.join(key)} is missing" for key in rows]
    if problems:
        raise DatasetError(
            f"{len(problems):,} of the {len(keys):,} images of {source.root} cannot be used: "
            f"{shortened(problems)}. Nothing was prepared"
        )
    description = {
        "source": str(source.root.resolve()),
        "layout": source.layout,
        "fingerprint": fingerprint,
        "image_size": size,
        "resize": resize,
        "pillow": PIL.__version__,
        "splits": {s: {c: len(names) for c, names in part.items()} for s, part in contents.items()},
        "sha256": _sha256(path),
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")


def shortened(problems: list[str]) -> str:
    """The first few of many problems, and how many more there are."""
    more = len(problems) - _PROBLEMS_SHOWN
    return "; ".join(problems[:_PROBLEMS_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")


def _decoded(
    source: Source, wanted: collections.abc.Container, size: int, resize: str
) -> Iterator[tuple[tuple[str, str, str], np.ndarray | ValueError]]:
    """Each wanted picture once, decoded or as the error it gave. Pillow leaves the cores free."""

    def attempt(picture: Picture) -> np.ndarray | ValueError:
        try:
            return decode(picture, size, resize)
        except ValueError as error:
            return error

    waiting: collections.deque[tuple[tuple[str, str, str], Future]] = collections.deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for *key, picture in source.pictures():
            if tuple(key) not in wanted:
                continue
            waiting.append((tuple(key), pool.submit(attempt, picture)))
            if len(waiting) >= _WAITING:
                key, future = waiting.popleft()
                yield key, future.result()
        for key, future in waiting:
            yield key, future.result()


def describe(folder: Path) -> dict[str, Any]:
    """Read ``images.json`` and compare the size of ``images.npy`` with it.

    Raises:
        DamagedArraysError: A file is missing, cut short or not as described.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        count = sum(sum(part.values()) for part in description["splits"].values())
        size = description["image_size"]
        images = np.load(folder / IMAGES, mmap_mode="r")
        whole = images.shape == (count, size, size, 3) and images.dtype == np.uint8
        if not whole or (folder / IMAGES).stat().st_size != images.offset + images.nbytes:
            raise ValueError(f"{IMAGES} has not the size that {DESCRIPTION} tells")
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedArraysError(f"{folder} is damaged or cut short: {error}") from error
    return description


def verify(folder: Path) -> None:
    """Compare the checksum of ``images.npy``, which reads all of it.

    Raises:
        DamagedArraysError: The content is not what was written.
    """
    if describe(folder)["sha256"] != _sha256(folder / IMAGES):
        raise DamagedArraysError(f"{folder / IMAGES} is damaged: its checksum differs")


def open_arrays(name: str, folder: Path) -> FewShotDataset:
    """Open prepared arrays; nothing is read before it is used.

    Args:
        name: Name of the data set.
        folder: Holds ``images.npy`` and ``images.json``.

    Returns:
        The data set; its images are a read-only memory map.

    Raises:
        DamagedArraysError: A file is missing, cut short or not as described.
    """
    splits = describe(folder)["splits"]
    sizes = [count for part in splits.values() for count in part.values()]
    numbers = iter(range(len(sizes)))
    return FewShotDataset(
        name=name,
        images=np.load(folder / IMAGES, mmap_mode="r"),
        class_offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        class_names=tuple(class_name for part in splits.values() for class_name in part),
        splits={
            split: np.asarray([next(numbers) for _ in part], np.int64)
            for split, part in splits.items()
        },
        pixel_scale=1 / 255,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
