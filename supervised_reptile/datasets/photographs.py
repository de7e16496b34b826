"""Mini-ImageNet and a user's own images, by class: prepared once, then opened at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.datasets.image_arrays import (
    DamagedArraysError,
    describe,
    open_arrays,
    shortened,
    verify,
)
from supervised_reptile.datasets.sources import Contents, Source, detect
from supervised_reptile.errors import DatasetError, DatasetNotFoundError
from supervised_reptile.places import default_data_dir, is_image_folder

VERSION = "1.0.0"
LEAST_IMAGES = 2  # a class: one to learn from and one to predict


def prepared_folder(data_dir: Path, folder: str, image_size: int, resize: str) -> Path:
    """Where prepared images lie, ``<data_dir>/<folder>/<size>-<filter>/<version>``."""
    return data_dir / folder / f"{image_size}-{resize}" / VERSION


def load(
    name: str, folder: str, *, data_dir: Path, image_size: int, resize: str, progress: bool = True
) -> FewShotDataset:
    """Open a data set of photographs; prepare it first where that was not done.

    It is prepared again, and said so, if its source has changed since or the prepared images are
    not whole.

    Args:
        name: Name of the data set.
        folder: Name of its folder.
        data_dir: Folder of all data sets; or that folder itself, ``is_image_folder``, into which
            nothing is then written: its prepared images go to the default data directory.
        image_size: Height and width in pixels.
        resize: Filter of Pillow, e.g. ``"nearest"``.
        progress: Whether to show a progress bar.

    Returns:
        The data set; images uint8 [num_images, image_size, image_size, 3], memory-mapped.

    Raises:
        DatasetNotFoundError: There are neither prepared images nor a source.
        DatasetError: The source is damaged or incomplete.
    """
    root = data_dir / folder
    if is_image_folder(data_dir) and data_dir.resolve().name == folder:
        root, data_dir = data_dir, Path(default_data_dir())
    source = detect(root)
    stored = prepared_folder(data_dir, folder, image_size, resize)
    if stored.exists():
        try:
            description = describe(stored)
        except DamagedArraysError as error:
            if source is None:
                raise DatasetError(f"{error}. Delete that folder and prepare it again") from error
            reason = str(error)
        else:
            source = source or detect(Path(description["source"]))
            if source is None or source.fingerprint() == description["fingerprint"]:
                return open_arrays(name, stored)
            reason = f"{source.root} has changed since it was prepared"
        print(f"{reason}; preparing it again", file=sys.stderr, flush=True)
    elif source is None:
        raise DatasetNotFoundError(_not_found(name, folder, data_dir, image_size, resize))
    prepare(
        name,
        folder,
        source,
        data_dir=data_dir,
        image_size=image_size,
        resize=resize,
        progress=progress,
    )
    return open_arrays(name, stored)


def prepare(
    name: str,
    folder: str,
    source: Source,
    *,
    data_dir: Path,
    image_size: int,
    resize: str,
    progress: bool = True,
) -> Path:
    """Check a source, decode its pictures and store them for `load`.

    Prepared images that are whole and of the source as it is now are kept, others replaced.

    Args:
        name: Name of the data set.
        folder: Name of its folder in `data_dir`.
        source: The source.
        data_dir: Folder of all data sets.
        image_size: Height and width in pixels.
        resize: Filter of Pillow.
        progress: Whether to show a progress bar.

    Returns:
        The folder of the prepared images.

    Raises:
        DatasetError: If the data are damaged or incomplete; the message lists what is missing.
            Nothing is prepared then.
    """
    stored = prepared_folder(data_dir, folder, image_size, resize)
    if stored.exists():
        try:
            verify(stored)
            if describe(stored)["fingerprint"] == source.fingerprint():
                return stored
        except DamagedArraysError:
            pass
    contents = source.contents()
    warn = _warner(source)
    problems = list(_find_problems(name, contents, warn))
    if problems:
        raise DatasetError(f"{source.root} is incomplete or not {name}: {shortened(problems)}")
    if source.left_out:
        files = ", ".join(f"{count} of {end}" for end, count in sorted(source.left_out.items()))
        warn(f"files that are no images were left out: {files}")

    # Imported here: a prepared data set is opened without it.
    from supervised_reptile.datasets.photographs_builder import Photographs

    return Photographs(
        folder,
        source,
        contents,
        data_dir=data_dir,
        image_size=image_size,
        resize=resize,
        progress=progress,
    ).build()


def _find_problems(name: str, contents: Contents, warn: Callable[[str], None]) -> Iterator[str]:
    owner: dict[str, str] = {}
    for split, classes in contents.items():
        if not classes:
            yield f"{split} has no classes"
        for class_name, names in classes.items():
            if class_name in owner:
                yield f"class {class_name} is in both {owner[class_name]} and {split}"
            owner[class_name] = split
            if len(names) < LEAST_IMAGES:
                count = f"{len(names)} of at least {LEAST_IMAGES} images"
                count = f"{len(names)} of at least {LEAST_IMAGES} images"
                yield f"class {class_name} of {split} has {count}"


def _warner(source: Source) -> Callable[[str], None]:
    return lambda text: print(f"warning: {source.root}: {text}", file=sys.stderr, flush=True)


def _not_found(name: str, folder: str, data_dir: Path, image_size: int, resize: str) -> str:
    return f"{name} is not in {data_dir / folder}"
