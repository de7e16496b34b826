"""Mini-ImageNet and a user's own images by class: prepared once, then opened instantly."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path

from supervised_reptile.config.locations import default_data_dir, is_image_folder
from supervised_reptile.datasets.few_shot import FewShotDataset, SizeCheck
from supervised_reptile.datasets.images.layouts import LAYOUTS
from supervised_reptile.datasets.images.miniimagenet import PICKLES_URL
from supervised_reptile.datasets.images.sources import ClassFolders, Source
from supervised_reptile.datasets.images.store import (
    DESCRIPTION,
    FORM,
    DamagedArraysError,
    ImageStore,
    open_arrays,
    verify,
)
from supervised_reptile.datasets.untrusted.guards import files_of
from supervised_reptile.errors import DatasetError, DatasetNotFoundError, printable
from supervised_reptile.programs import command

MINIIMAGENET = "miniimagenet"


def find_source(name: str, root: Path, layout: str | None = None) -> Source | None:
    """Return the source in a folder, or ``None`` if there is none.

    Args:
        name: Name of the data set; Mini-ImageNet has several layouts.
        root: The folder.
        layout: Name of the layout, if there is more than one.
    """
    kinds = LAYOUTS if name == MINIIMAGENET else (ClassFolders,)
    for kind in kinds:
        if layout in (None, kind.layout) and kind.is_at(root):
            return kind(root)
    return None


def load(
    store: ImageStore,
    *,
    progress: bool = True,
    verify_all: bool = False,
    check: SizeCheck | None = None,
) -> FewShotDataset:
    """Open a data set of photographs, after preparing it if necessary.

    If its source has changed or the prepared images are damaged, it is prepared again, with a note.

    Args:
        store: The data set and its location. Its ``data_dir`` may also be the folder of the images
            itself (``is_image_folder``), into which nothing is then written: the prepared images
            go to the default data directory.
        progress: Whether to show a progress bar.
        verify_all: Whether to compare the checksum of the images even if the file has not
            changed since the last check.
        check: See :func:`prepare`.

    Returns:
        The data set; images uint8 [num_images, image_size, image_size, 3], memory-mapped.

    Raises:
        DatasetNotFoundError: There are no prepared images and no source.
        DatasetError: The source is damaged or incomplete.
    """
    with files_of(store.data_dir):
        return _load(store, progress, verify_all, check)


def _load(
    store: ImageStore, progress: bool, verify_all: bool, check: SizeCheck | None
) -> FewShotDataset:
    root, given = store.data_dir / store.folder, None
    if is_image_folder(store.data_dir) and store.data_dir.resolve().name == store.folder:
        root = store.data_dir
        given = find_source(store.name, root)
        store = dataclasses.replace(store, data_dir=Path(default_data_dir()))
    if not store.path.exists():
        source = given or find_source(store.name, root)
        if source is None:
            raise DatasetNotFoundError(_not_found(store))
        prepare(store, source, progress=progress, check=check)
        return open_arrays(store, verify(store, always=False))
    try:
        description = verify(store, always=verify_all)
    except DamagedArraysError as error:
        source = given or _recorded_source(store) or find_source(store.name, root)
        if source is None:
            raise DatasetError(f"{error}; delete that folder and prepare it again") from error
        reason = str(error)
    else:
        source = given or _recorded_source(store)
        if source is None:
            return open_arrays(store, description)
        if source.fingerprint() != description["fingerprint"]:
            reason = f"{source.root} has changed since it was prepared"
        elif description.get("form") != FORM:
            reason = f"{store.path} was prepared by an earlier version"
        else:
            return open_arrays(store, description)
    print(printable(f"{reason}; preparing it again"), file=sys.stderr, flush=True)
    prepare(store, source, progress=progress, check=check)
    return open_arrays(store, verify(store, always=False))


def prepare(
    store: ImageStore,
    source: Source | None = None,
    *,
    url: str = PICKLES_URL,
    progress: bool = True,
    check: SizeCheck | None = None,
) -> Path:
    """Check a source, decode its pictures and store them for ``load``.

    Prepared images are kept if they are intact and match the current source, else replaced.

    Args:
        store: The data set and where to store it.
        source: Source of the pictures; ``None`` to download Mini-ImageNet.
        url: Address of the folder to download from.
        progress: Whether to show a progress bar.
        check: Function that receives the number of images per class, by split, before any is
            decoded. It may raise an error.

    Returns:
        The folder of the prepared images.

    Raises:
        DatasetError: The data are not available, damaged or incomplete; the message lists what is
            missing. In this case nothing is prepared; verified downloads are kept.
    """
    with files_of(source.root if source else store.data_dir):
        if store.path.exists():
            try:
                description = verify(store)
                whole = description.get("form") == FORM
                if source is None or (whole and description["fingerprint"] == source.fingerprint()):
                    return store.path
            except DamagedArraysError:
                pass
            # TFDS's metadata are not needed to open images, but TFDS fails if they are damaged.
            for note in ("dataset_info.json", "features.json"):
                (store.path / note).unlink(missing_ok=True)
        # Imported here: prepared images are opened without TFDS.
        from supervised_reptile.datasets.images.photographs_builder import Photographs

        return Photographs(store, source, url=url, progress=progress, check=check).build()


def _recorded_source(store: ImageStore) -> Source | None:
    """Return the source of prepared images, if it still exists."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        description = json.loads((store.path / DESCRIPTION).read_text())
        return find_source(store.name, Path(description["source"]), description["layout"])
    return None


def _not_found(store: ImageStore) -> str:
    place = store.data_dir / store.folder
    if store.name == MINIIMAGENET:
        size = "" if store.image_size == 84 else f" --image_size {store.image_size}"
        size += "" if store.resize == "nearest" else f" --resize {store.resize}"
        return (
            f"Mini-ImageNet is not in {place}, {store.image_size}x{store.image_size} by "
            f"{store.resize}: run {command('fetch')} miniimagenet --data_dir {store.data_dir}{size}"
            ", or give --data_dir a folder with train/, val/ and test/ in it, images of your own"
        )
    return (
        f"{place} has no train/ and test/ with a folder of images per class (or zip files of "
        "them), and there are no prepared images"
    )
