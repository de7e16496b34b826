"""Sound data of every kind, and how they are damaged: for `campaign.data_fuzz`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from supervised_reptile.datasets.images.contents import checked_contents
from supervised_reptile.datasets.images.decoding import FORMATS, decode
from supervised_reptile.datasets.images.layouts import ImageNetTar, ListedImages, Pickles
from supervised_reptile.datasets.images.sources import ClassFolders, Source
from supervised_reptile.errors import DatasetError

CLASSES = {"train": ("n01532829", "n01558993"), "val": ("n01855672",), "test": ("n01930112",)}
IMAGES, SIZE = 3, 8

Rng = np.random.Generator
# Reads what lies in a folder, and returns all of it in a form that can be compared.
Reader = Callable[[Path], object]


def _pixels(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def _encoded(seed: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_pixels(seed)).save(buffer, kind)
    return buffer.getvalue()


def _names(split: str) -> list[tuple[str, str, bytes]]:
    """Class, file name and content of a split's pictures."""
    return [
        (name, f"{name}_{i}.JPEG", _encoded(int(name[1:]) + i))
        for name in CLASSES[split]
        for i in range(IMAGES)
    ]


# ------------------------------------------------------------------------------ the mutations


def mutate(content: bytes, rng: Rng) -> bytes:
    """Flip, cut, repeat, move or overwrite bytes at random places."""
    data, size = bytearray(content), max(1, len(content))
    for _ in range(int(rng.integers(1, 4))):
        place, length = int(rng.integers(size)), int(rng.integers(1, 40))
        match int(rng.integers(7)):
            case 0 | 1:
                data[place : place + 1] = bytes([int(rng.integers(256))])
            case 2:
                if place < len(data):
                    data[place] ^= 1 << int(rng.integers(8))
            case 3:
                del data[place:]
            case 4:
                del data[place : place + length]
            case 5:
                data[place:place] = data[place : place + length]
            case 6:
                extreme = (b"\0", b"\xff", b"\x7f")[int(rng.integers(3))]
                data[place : place + 4] = extreme * 4
    return bytes(data)


# --------------------------------------------------------------------------------- the kinds


def _content_of(source: Source, name: str) -> object:
    """All that a source gives: what is decoded, under its names."""
    contents = checked_contents(name, source)
    keys = {(s, c, n) for s, part in contents.items() for c in part for n in part[c]}
    found = {}
    for *key, picture in source.pictures():
        if tuple(key) in keys:
            try:
                found[tuple(key)] = decode(picture, SIZE, "nearest").tobytes()
            except ValueError as error:
                raise DatasetError(f"{'/'.join(key)} {error}") from error
    if missing := keys - set(found):
        raise DatasetError(f"{min(missing)} is missing")
    return contents, found


def _write_zips(root: Path, variant: int) -> list[Path]:
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    method = methods[variant % 4]
    for split in CLASSES:
        with zipfile.ZipFile(root / f"{split}.zip", "w", method) as archive:
            for class_name, name, content in _names(split):
                archive.writestr(f"{split}/{class_name}/{name}", content)
    return [root / f"{split}.zip" for split in CLASSES]


def _read_folders(root: Path) -> object:
    if not ClassFolders.is_at(root):
        raise DatasetError(f"{root} has no train/ and test/")
    return _content_of(ClassFolders(root), "folder:x")


def _write_tar(root: Path, variant: int) -> list[Path]:
    form = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)[variant % 3]
    path = root / "ILSVRC2012_img_train.tar"
    with tarfile.open(path, "w", format=form) as outer:
        for split in CLASSES:
            lines = ["filename,label"]
            for class_name in CLASSES[split]:
                buffer = io.BytesIO()
                with tarfile.open(fileobj=buffer, mode="w", format=form) as inner:
                    for name, picture, content in _names(split):
                        if name == class_name:
                            member = tarfile.TarInfo(picture)
                            member.size = len(content)
                            inner.addfile(member, io.BytesIO(content))
                            lines.append(f"{picture},{name}")
                member = tarfile.TarInfo(f"{class_name}.tar")
                member.size = len(buffer.getvalue())
                outer.addfile(member, io.BytesIO(buffer.getvalue()))
            (root / f"{split}.csv").write_text("\n".join(lines))
    return [path]


def _write_pickles(root: Path, variant: int) -> list[Path]:
    paths, protocol = [], variant % 6
    for split, classes in CLASSES.items():
        images = [_pixels(int(name[1:]) + i) for name in classes for i in range(IMAGES)]
        rows = {
            name.encode(): list(range(k * IMAGES, (k + 1) * IMAGES))
            for k, name in enumerate(classes)
        }
        data = {"image_data": np.stack(images), "class_dict": rows}
        if protocol < 3:  # Python 3 pickles bytes for Python 2 by a function; text is plain
            data["class_dict"] = {name.decode(): value for name, value in rows.items()}
        path = root / f"mini-imagenet-cache-{split}.pkl"
        path.write_bytes(pickle.dumps(data, protocol))
        paths.append(path)
    return paths


def _write_lists(root: Path, variant: int) -> list[Path]:
    (root / "images").mkdir()
    paths = []
    for split in CLASSES:
        lines = ["filename,label"]
        for class_name, name, content in _names(split):
            (root / "images" / name).write_bytes(content)
            lines.append(f"{name},{class_name}")
        (root / f"{split}.csv").write_text("\n".join(lines))
        paths.append(root / f"{split}.csv")
    return paths


def _write_picture(root: Path, variant: int) -> list[Path]:
    kinds = [kind for kind in FORMATS if kind != "AVIF" or "AVIF" in Image.SAVE]
    path = root / "picture"
    path.write_bytes(_encoded(variant, kinds[variant % len(kinds)]))
    return [path]


def _read_picture(root: Path) -> object:
    try:
        return decode(root / "picture", SIZE, "bicubic").tobytes()
    except ValueError as error:
        raise DatasetError(error) from error


def write_folders(root: Path, variant: int = 0) -> list[Path]:
    for split in CLASSES:
        for class_name, name, content in _names(split):
            (root / split / class_name).mkdir(parents=True, exist_ok=True)
            (root / split / class_name / name).write_bytes(content)
    return []


def _damage_tree(root: Path, rng: Rng) -> None:
    """Move, remove, link or add something in a tree of images."""
    places = sorted(path for path in root.rglob("*") if not path.is_symlink())
    place = places[int(rng.integers(len(places)))]
    other = places[int(rng.integers(len(places)))]
    with contextlib.suppress(OSError, shutil.Error):
        match int(rng.integers(9)):
            case 0:
                place.unlink() if place.is_file() else shutil.rmtree(place)
            case 1:
                shutil.move(place, other)
            case 2:
                if place.is_dir() and place not in (other, *other.parents):
                    shutil.copytree(place, other / "copy")
            case 3:
                place.rename(place.with_name("\x1b[2Jx\n" + place.suffix))
            case 4:
                (place if place.is_dir() else place.parent).joinpath("x.png").symlink_to("none")
            case 5:
                place.unlink()
                place.symlink_to(place.name)
            case 6:
                place.unlink()
                place.mkdir()
            case 7:
                place.write_bytes(b"")
            case 8:
                place.write_bytes(mutate(place.read_bytes(), rng))


def expected_of_tree(root: Path) -> tuple[object, bool]:
    """What a tree holds, found in another way; and whether it holds more, to be reported."""
    found, contents, rest = {}, {}, False
    for split, other in (("train", "train"), ("val", "validation"), ("test", "test")):
        if not (root / split).is_dir():
            continue
        contents[other] = {}
        for path in sorted((root / split).rglob("*")):
            parts = path.relative_to(root / split).parts
            picture = path.suffix in (".JPEG", ".png")
            if len(parts) == 1 and path.is_dir():
                contents[other].setdefault(parts[0], [])
            elif len(parts) == 2 and path.is_file() and picture:
                contents[other][parts[0]].append(parts[1])
                with contextlib.suppress(ValueError):
                    found[other, *parts] = decode(path, SIZE, "nearest").tobytes()
            elif picture or (path.is_symlink() and not path.exists()):
                rest = True
    return (contents, found), rest


@dataclasses.dataclass
class Kind:
    """One kind of input.

    Attributes:
        write: Writes a sound one into a folder, in one of many variants; returns the files to
            damage.
        read: Reads what is there.
        checked: Whether the format has checksums all over, so that other data are wrong.
        damage: Damages a whole tree, in place of the bytes of a file.
    """

    write: Callable[[Path, int], list[Path]]
    read: Reader
    checked: bool = True
    damage: Callable[[Path, Rng], None] | None = None


def _mini(layout: type[Source]) -> Reader:
    def read(root: Path) -> object:
        if not layout.is_at(root):
            raise DatasetError(f"{root} has no {layout.layout}")
        return _content_of(layout(root), "miniimagenet")

    return read


KINDS = {
    "zip": Kind(_write_zips, _read_folders),
    "tar": Kind(_write_tar, _mini(ImageNetTar)),
    "pickle": Kind(_write_pickles, _mini(Pickles), checked=False),
    "list": Kind(_write_lists, _mini(ListedImages)),
    "picture": Kind(_write_picture, _read_picture, checked=False),
    "tree": Kind(write_folders, _read_folders, damage=_damage_tree),
}
