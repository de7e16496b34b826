"""Decode pictures once, on all cores, into one array that opens instantly."""

from __future__ import annotations

import collections
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL

from supervised_reptile.datasets.images.decoding import Picture, decode
from supervised_reptile.datasets.images.sources import Contents, Source
from supervised_reptile.datasets.images.store import IMAGES, ImageStore, write_description
from supervised_reptile.datasets.untrusted.guards import files_of
from supervised_reptile.errors import DatasetError
from supervised_reptile.progress import Progress

_PROBLEMS_SHOWN = 5
# Maximum number of pictures that wait to be decoded, and of their bytes.
_WAITING, _WAITING_BYTES = 256, 2**28


def write_arrays(
    source: Source, contents: Contents, store: ImageStore, folder: Path, *, progress: bool
) -> None:
    """Decode every picture into ``folder/images.npy``, described by ``folder/images.json``.

    The pictures are written one by one and not kept, so little memory is needed.

    Args:
        source: Source of the pictures.
        contents: Required pictures; others are ignored.
        store: Supplies the data set, the size and the filter.
        folder: Folder to write to. Use a temporary one, because a failure leaves it incomplete.
        progress: Whether to show a progress bar.

    Raises:
        DatasetError: A picture is missing, empty or damaged. All are decoded first, and the
            message states the number of failures and the first few.
    """
    with files_of(source.root):
        fingerprint = source.fingerprint()  # before reading, so later changes are noticed
    keys = [(s, c, n) for s, classes in contents.items() for c in classes for n in classes[c]]
    rows = {key: row for row, key in enumerate(keys)}
    problems, path, size = [], folder / IMAGES, store.image_size
    shape = (len(keys), size, size, 3)
    with (
        path.open("wb") as file,
        Progress(len(keys), "decoding", "image", mode=progress) as bar,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start, length = file.tell(), size * size * 3
        file.truncate(start + len(keys) * length)
        for key, image in _decoded(source, rows.keys(), store):
            row = rows.pop(key)
            bar.add()
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
        "kind": store.kind,
        "source": str(source.root.resolve()),
        "layout": source.layout,
        "fingerprint": fingerprint,
        "image_size": size,
        "resize": store.resize,
        "pillow": PIL.__version__,
        "splits": {s: {c: len(names) for c, names in part.items()} for s, part in contents.items()},
    }
    write_description(folder, description)


def shortened(problems: list[str]) -> str:
    """Return the first few of many problems, and the number of the others."""
    more = len(problems) - _PROBLEMS_SHOWN
    return "; ".join(problems[:_PROBLEMS_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")


def _decoded(
    source: Source, wanted: collections.abc.Container, store: ImageStore
) -> Iterator[tuple[tuple[str, str, str], np.ndarray | ValueError]]:
    """Yield each required picture once, decoded or as an error; Pillow runs in threads."""
    upright = store.kind == "folder"  # the authors' program ignores EXIF

    def attempt(picture: Picture) -> np.ndarray | ValueError:
        try:
            return decode(picture, store.image_size, store.resize, upright=upright)
        except ValueError as error:
            return error

    waiting: collections.deque[tuple[tuple[str, str, str], Future]] = collections.deque()
    sizes: collections.deque[int] = collections.deque()
    with (
        files_of(source.root),
        warnings.catch_warnings(),
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        # Pillow warns about large or odd pictures; unreadable ones are errors.
        warnings.simplefilter("ignore")
        for split, class_name, name, picture in source.pictures():
            key = split, class_name, name
            if key not in wanted:
                continue
            waiting.append((key, pool.submit(attempt, picture)))
            sizes.append(len(picture) if isinstance(picture, bytes) else 0)
            while len(waiting) >= _WAITING or sum(sizes) > _WAITING_BYTES:
                key, future = waiting.popleft()
                sizes.popleft()
                yield key, future.result()
        for key, future in waiting:
            yield key, future.result()
