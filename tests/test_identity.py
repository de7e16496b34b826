"""Which data a run used: the fingerprint of each kind of data set."""

import hashlib
import json
import os
import shutil

import numpy as np
import photograph_fixtures as fixtures
import pytest
from helpers import vector_dataset

from supervised_reptile.datasets import load_dataset
from supervised_reptile.datasets.images import miniimagenet, store
from supervised_reptile.datasets.omniglot_contents import FINGERPRINT
from supervised_reptile.errors import DatasetError

GLYPHS = "b236da7a4b9c2d3e"
# SHA-256 of images, borders of classes, their names and the splits, as version 0.1 made them.
VERSION_0_1 = {
    ("omniglot", 0): "cf970e576df4c842f6d5f0b146dc3456128c2ac617d3880f63f187b7e6594a15",
    ("omniglot", 3): "808da9a82816b6e434461697fb6b83563c37f7ef4c9f993b2bdb12c99e446054",
    ("glyphs", 0): "af5748dfe8e2d67c8b3a950d5c8eaf254cfa9428e293878cd428fb08e525522f",
    ("glyphs", 3): "30bb7727e62662d64379e3e154121485de7d3f3c01400883269a93c04d3f0791",
}


@pytest.fixture
def small(monkeypatch):
    """Mini-ImageNet with a few of its classes, of four images."""
    monkeypatch.setattr(miniimagenet, "CLASSES", fixtures.CLASSES)
    monkeypatch.setattr(miniimagenet, "IMAGES_PER_CLASS", fixtures.PER_CLASS)


def load(name, data_dir, image_size=10, **options):
    return load_dataset(name, data_dir=data_dir, image_size=image_size, progress=False, **options)


@pytest.mark.parametrize(("name", "seed"), VERSION_0_1)
def test_characters_and_splits_are_those_of_version_0_1(name, seed, request):
    data_dir = request.getfixturevalue("prepared_omniglot") if name == "omniglot" else "unused"
    dataset = load(name, data_dir, 28, seed=seed)
    digest = hashlib.sha256(dataset.images.tobytes() + dataset.class_offsets.tobytes())
    digest.update("\n".join(dataset.class_names).encode())
    for split, ids in dataset.splits.items():
        digest.update(split.encode() + ids.tobytes())
    assert digest.hexdigest() == VERSION_0_1[name, seed]


def test_omniglot_is_known_by_the_official_drawings(prepared_omniglot):
    first, other = (load("omniglot", prepared_omniglot, 28, seed=seed) for seed in (0, 1))
    assert first.fingerprint == other.fingerprint == FINGERPRINT
    assert first.description == (
        "omniglot, 1,623 characters of 20 drawings, 28x28, the official drawings"
    )


def test_omniglot_with_one_other_drawing_is_other_data(prepared_omniglot, monkeypatch, capsys):
    from supervised_reptile.datasets import omniglot

    drawings, names = omniglot.read(omniglot.Omniglot(data_dir=prepared_omniglot))
    drawings[7, 3, 2, 1] ^= 1
    monkeypatch.setattr(omniglot, "read", lambda builder: (drawings, names))
    dataset = load("omniglot", prepared_omniglot, 28)
    assert dataset.fingerprint != FINGERPRINT
    assert dataset.description.endswith("not the official drawings")
    assert "are not exactly those of the official archives" in capsys.readouterr().err


def test_glyphs_are_one_data_set_with_every_seed():
    assert {load("glyphs", "unused", 28, seed=seed).fingerprint for seed in (0, 5)} == {GLYPHS}


def test_arrays_of_ones_own_are_known_by_their_content():
    first, again, other = (vector_dataset(seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.description == "glyphs, 96 images of 12 classes, 3x3x1"


def changed_pixel(own):
    path = own / "train/n01532829/n01532829_0.JPEG"
    path.write_bytes(fixtures.encoded(fixtures.pixels("n00000001", 1)))


CHANGES = {
    "pixel": changed_pixel,
    "picture": lambda own: (own / "train/n01532829/n01532829_3.JPEG").unlink(),
    "class": lambda own: (own / "train/n01532829").rename(own / "train/another"),
    "split": lambda own: (own / "train/n01532829").rename(own / "test/n01532829"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_content_has_another_fingerprint(change, tmp_path):
    own = fixtures.write_folders(tmp_path / "flowers")
    before = load("folder:flowers", tmp_path)
    assert load("folder:flowers", tmp_path).fingerprint == before.fingerprint
    CHANGES[change](own)
    assert load("folder:flowers", tmp_path).fingerprint != before.fingerprint


def test_size_and_filter_count(tmp_path):
    fixtures.write_folders(tmp_path / "flowers")
    ways = ((10, "nearest"), (11, "nearest"), (10, "box"))
    found = [load("folder:flowers", tmp_path, size, resize=resize) for size, resize in ways]
    assert len({dataset.fingerprint for dataset in found}) == 3
    assert found[0].description == (
        "folder:flowers, 28 images of 3/2/2 train/validation/test classes, 10x10 by nearest"
    )


def test_neither_place_nor_layout_counts(tmp_path):
    for place, write in (("here", fixtures.write_folders), ("there", fixtures.write_zips)):
        write(tmp_path / place / "flowers")
    here, there = (load("folder:flowers", tmp_path / place) for place in ("here", "there"))
    assert here.fingerprint == there.fingerprint


def test_a_folder_named_miniimagenet_is_not_mini_imagenet(small, tmp_path, monkeypatch):
    """Its own classes are not the published ones, and it does not take their place."""
    own = tmp_path / "miniimagenet"
    for split in ("train", "test"):
        for name in "abcdef":
            (own / split / f"{split}-{name}").mkdir(parents=True)
            for i in range(3):
                path = own / split / f"{split}-{name}" / f"{i}.png"
                path.write_bytes(fixtures.encoded(fixtures.pixels("n00000001", i, 10)))
    mine = load("folder:miniimagenet", tmp_path)
    assert mine.class_names[0] == "train-a"
    assert not (own / "10-nearest").exists()
    with pytest.raises(DatasetError, match="is incomplete or not miniimagenet"):
        load("miniimagenet", tmp_path)


def test_the_same_images_are_other_data_as_a_folder(small, tmp_path):
    fixtures.write_folders(tmp_path / "miniimagenet")
    official, mine = (load(name, tmp_path) for name in ("miniimagenet", "folder:miniimagenet"))
    np.testing.assert_array_equal(official.images, mine.images)
    assert official.fingerprint != mine.fingerprint
    assert official.description.startswith("miniimagenet, ")
    assert mine.description.startswith("folder:miniimagenet, ")


def test_a_prepared_folder_moved_to_mini_imagenets_place_is_refused(small, tmp_path):
    fixtures.write_folders(tmp_path / "flowers")
    load("folder:flowers", tmp_path)
    shutil.copytree(tmp_path / "flowers/10-nearest", tmp_path / "miniimagenet/10-nearest")
    shutil.rmtree(tmp_path / "flowers")
    with pytest.raises(DatasetError, match="holds other images: it was prepared for folder"):
        load("miniimagenet", tmp_path)


# ------------------------------------------------------------- prepared images stay as they were


@pytest.fixture
def stored(tmp_path):
    """The folder of prepared images, whose source is gone."""
    own = fixtures.write_folders(tmp_path / "flowers")
    load("folder:flowers", tmp_path)
    for split in ("train", "val", "test"):
        shutil.rmtree(own / split)
    return own / "10-nearest/1.0.0"


def flip(path, position, bit=0):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["images.npy", "images.json"])
def test_every_flipped_bit_is_noticed_when_the_images_are_opened(name, stored, tmp_path):
    path, rng = stored / name, np.random.default_rng(0)
    expected, size = load("folder:flowers", tmp_path).fingerprint, path.stat().st_size
    for position in rng.integers(0, size, 30):
        bit = int(rng.integers(8))
        flip(path, position, bit)
        with pytest.raises(DatasetError, match=r"damaged.*; delete that folder and prepare it"):
            load("folder:flowers", tmp_path)
        flip(path, position, bit)
    assert load("folder:flowers", tmp_path).fingerprint == expected


def test_a_damaged_set_is_prepared_again_where_its_source_is(tmp_path, capsys):
    own = fixtures.write_folders(tmp_path / "flowers")
    expected = load("folder:flowers", tmp_path).fingerprint
    flip(own / "10-nearest/1.0.0/images.npy", 5000)
    assert load("folder:flowers", tmp_path).fingerprint == expected
    assert "its checksum differs; preparing it again" in capsys.readouterr().err


def test_a_file_that_has_not_changed_is_not_read_again(stored, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_SETTLED_SECONDS", -1)
    load("folder:flowers", tmp_path)
    read = []
    monkeypatch.setattr(store, "_sha256", lambda path: read.append(path) or original(path))
    load("folder:flowers", tmp_path)
    assert read == []
    load("folder:flowers", tmp_path, verify=True)
    assert len(read) == 1
    # The same size and time of change, but not the same times of the file system.
    path = stored / "images.npy"
    stat = path.stat()
    flip(path, 5000)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(DatasetError, match="its checksum differs"):
        load("folder:flowers", tmp_path)


original = store._sha256


@pytest.mark.parametrize("note", ["", "null", "[" * 100_000, "{}"])
def test_a_damaged_note_of_the_last_check_counts_for_nothing(note, stored, tmp_path):
    (stored / "checked.json").write_text(note)
    load("folder:flowers", tmp_path)
    flip(stored / "images.npy", 5000)
    with pytest.raises(DatasetError, match="its checksum differs"):
        load("folder:flowers", tmp_path)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "\udcff", "[" * 100_000, '{"splits": 1}', "1" * 5000]
)
def test_a_damaged_description_is_one_line(text, stored, tmp_path):
    (stored / "images.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DatasetError, match="is damaged") as caught:
        load("folder:flowers", tmp_path)
    assert "\n" not in str(caught.value)


def as_first_form(folder):
    """Images as version 0.1 prepared them."""
    description = json.loads((folder / "images.json").read_text())
    for key in ("form", "kind", "sum"):
        del description[key]
    (folder / "images.json").write_text(json.dumps(description, indent=1) + "\n")


def test_what_version_0_1_prepared_is_opened(stored, tmp_path):
    expected = load("folder:flowers", tmp_path)
    as_first_form(stored)
    dataset = load("folder:flowers", tmp_path)
    assert dataset.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(dataset.images, expected.images)


def test_what_version_0_1_prepared_is_prepared_again_from_its_source(tmp_path, capsys):
    own = fixtures.write_folders(tmp_path / "flowers")
    expected = load("folder:flowers", tmp_path)
    as_first_form(own / "10-nearest/1.0.0")
    assert load("folder:flowers", tmp_path).fingerprint == expected.fingerprint
    assert "was prepared by an earlier version; preparing it again" in capsys.readouterr().err
    load("folder:flowers", tmp_path)
    assert capsys.readouterr().err == ""
