"""Small data sets of photographs in every layout, with pictures known pixel for pixel."""

import csv
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

# Real WordNet ids of Mini-ImageNet, a few of each split.
CLASSES = {
    "train": ("n01532829", "n01558993", "n01704323"),
    "validation": ("n01855672", "n02091244"),
    "test": ("n01930112", "n01981276"),
}
PER_CLASS = 4
FOLDERS = {"train": "train", "validation": "val", "test": "test"}
NOT_A_CLASS = "n99999999"


def pixels(class_name, number, size=84):
    """The picture that is number 0, 1, … of a class, uint8 [size, size, 3]."""
    rng = np.random.default_rng([int(class_name[1:]), number])
    return rng.integers(0, 256, (size, size, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    """An image file; PNG by default, which keeps every pixel, whatever its name says."""
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_folders(root, classes=CLASSES, per_class=PER_CLASS):
    for split, names in classes.items():
        for name in names:
            folder = root / FOLDERS[split] / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                (folder / f"{name}_{i}.JPEG").write_bytes(encoded(pixels(name, i)))
    return root


def write_zips(root):
    tree = write_folders(root / "tree")
    for folder in FOLDERS.values():
        with zipfile.ZipFile(root / f"{folder}.zip", "w") as archive:
            for path in sorted((tree / folder).rglob("*.JPEG")):
                archive.write(path, path.relative_to(tree).as_posix())
    return root


def write_csvs(root, name_of):
    root.mkdir(exist_ok=True)
    for split, names in CLASSES.items():
        with (root / f"{FOLDERS[split]}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["filename", "label"])
            for name in names:
                for i in range(PER_CLASS):
                    writer.writerow([name_of(name, i), name])


def write_lists(root):
    def file_name(name, i):
        return f"{name}{2 * i + 1:08d}.jpg"

    write_csvs(root, file_name)
    (root / "images").mkdir()
    for names in CLASSES.values():
        for name in names:
            for i in range(PER_CLASS):
                (root / "images" / file_name(name, i)).write_bytes(encoded(pixels(name, i)))
    return root


def write_pickles(root, protocol=2, keys=str.encode, validation="val"):
    root.mkdir(exist_ok=True)
    for split, names in CLASSES.items():
        data = {
            "image_data": np.stack([pixels(n, i) for n in names for i in range(PER_CLASS)]),
            "class_dict": {
                keys(name): list(range(k * PER_CLASS, (k + 1) * PER_CLASS))
                for k, name in enumerate(names)
            },
        }
        file = validation if split == "validation" else split
        (root / f"mini-imagenet-cache-{file}.pkl").write_bytes(pickle.dumps(data, protocol))
    return root


def add_bytes(archive, name, content, kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, link
    archive.addfile(member, io.BytesIO(content))


def class_tar(name, change=None):
    """ImageNet's archive of a class: more pictures than wanted, not in the order of numbers.

    Those wanted have the places 1, 3, 5 … by number; `change(archive)` may add members.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for place in reversed(range(2 * PER_CLASS)):
            wanted, rest = divmod(place, 2)
            picture = b"unwanted" if rest else encoded(pixels(name, wanted))
            add_bytes(archive, f"{name}_{7 * place + 2}.JPEG", picture)
        if change:
            change(archive)
    return buffer.getvalue()


def write_imagenet(root, change_inner=None, change_outer=None):
    write_csvs(root, lambda name, i: f"{name}{2 * i + 1:08d}.jpg")
    names = sorted([*(n for names in CLASSES.values() for n in names), NOT_A_CLASS])
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as archive:
        if change_outer:
            change_outer(archive)
        for name in names:
            content = b"never opened" if name == NOT_A_CLASS else class_tar(name, change_inner)
            add_bytes(archive, f"{name}.tar", content)
    return root


LAYOUTS = {
    "folders": write_folders,
    "zips": write_zips,
    "lists": write_lists,
    "pickles": write_pickles,
    "imagenet": write_imagenet,
}


def expected_images():
    """All pictures in the order they are stored in."""
    return np.stack(
        [pixels(n, i) for names in CLASSES.values() for n in names for i in range(PER_CLASS)]
    )


def tree_state(root: Path):
    """Names, sizes and times of everything below a folder."""
    return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(root.rglob("*"))}
