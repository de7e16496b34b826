"""Mini-ImageNet from each layout it goes round in, and images of one's own."""

import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import photograph_fixtures as fixtures
import pytest
from helpers import exit_code
from http_server import serving
from PIL import Image

from supervised_reptile.config import RunOptions, paper_config
from supervised_reptile.datasets import load_dataset
from supervised_reptile.datasets.images import arrays
from supervised_reptile.datasets.images import miniimagenet as miniimagenet_contents
from supervised_reptile.datasets.images.decoding import decode
from supervised_reptile.datasets.images.photographs import find_source, load, prepare
from supervised_reptile.datasets.images.store import ImageStore
from supervised_reptile.datasets.untrusted.pickles import load_arrays
from supervised_reptile.errors import ConfigError, DatasetError, DatasetNotFoundError
from supervised_reptile.runs.stages import load_data
from supervised_reptile.tools import fetch as command_line

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def small(monkeypatch):
    """Mini-ImageNet with a few of its classes, of four images."""
    monkeypatch.setattr(miniimagenet_contents, "CLASSES", fixtures.CLASSES)
    monkeypatch.setattr(miniimagenet_contents, "IMAGES_PER_CLASS", fixtures.PER_CLASS)


def store_in(data_dir, name="miniimagenet", size=84, resize="nearest"):
    return ImageStore(name, data_dir, size, resize)


def prepared(root, data_dir, name="miniimagenet", **options):
    store = store_in(data_dir, name, **options)
    prepare(store, find_source(name, root), progress=False)
    return load(store, progress=False)


def assert_refused(root, data_dir, *phrases, name="miniimagenet"):
    """Preparing fails with all phrases in one line, and leaves nothing that looks finished."""
    store = store_in(data_dir, name)
    with pytest.raises(DatasetError) as caught:
        prepare(store, find_source(name, root), progress=False)
    for phrase in phrases:
        assert phrase in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not store.path.exists()
    assert not list(data_dir.rglob("*.npy"))
    return str(caught.value)


# ------------------------------------------------------------------------------ the layouts


@pytest.mark.parametrize("layout", fixtures.LAYOUTS)
def test_every_layout_gives_the_same_data(layout, small, tmp_path):
    root = fixtures.LAYOUTS[layout](tmp_path / "source")
    before = fixtures.tree_state(root)
    source = find_source("miniimagenet", root)
    assert source.layout == {"zips": "folders"}.get(layout, layout)
    dataset = prepared(root, tmp_path / "data")
    assert fixtures.tree_state(root) == before
    assert dataset.name == "miniimagenet"
    np.testing.assert_array_equal(dataset.images, fixtures.expected_images())
    assert isinstance(dataset.images, np.memmap)
    assert not dataset.images.flags.writeable
    assert dataset.pixel_scale == 1 / 255
    assert dataset.class_names == sum(fixtures.CLASSES.values(), ())
    assert {s: ids.tolist() for s, ids in dataset.splits.items()} == {
        "train": [0, 1, 2],
        "validation": [3, 4],
        "test": [5, 6],
    }
    assert np.diff(dataset.class_offsets).tolist() == [fixtures.PER_CLASS] * 7


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickles_of_every_protocol(protocol, small, tmp_path):
    root = fixtures.write_pickles(tmp_path / "p", protocol, keys=str, validation="validation")
    dataset = prepared(root, tmp_path / "data")
    np.testing.assert_array_equal(dataset.images, fixtures.expected_images())


def test_the_authors_own_lists_for_the_imagenet_tar(small, tmp_path):
    root = fixtures.write_imagenet(tmp_path / "source")
    for split, names in fixtures.CLASSES.items():
        (root / f"{fixtures.FOLDERS[split]}.csv").unlink()
        (root / fixtures.FOLDERS[split]).mkdir()
        for name in names:
            lines = [f"{name}_{14 * i + 2}.JPEG,{i}00-{i}99" for i in range(fixtures.PER_CLASS)]
            path = root / fixtures.FOLDERS[split] / f"{name}.csv"
            path.write_text("\n".join(lines))
    dataset = prepared(root, tmp_path / "data")
    # n…_16 comes before n…_2 by name.
    order = sorted(range(fixtures.PER_CLASS), key=lambda i: f"{14 * i + 2}.JPEG")
    expected = fixtures.expected_images().reshape(7, fixtures.PER_CLASS, 84, 84, 3)[:, order]
    np.testing.assert_array_equal(dataset.images, expected.reshape(-1, 84, 84, 3))


def test_the_published_split():
    sizes = {split: len(set(ids)) for split, ids in miniimagenet_contents.CLASSES.items()}
    assert sizes == {"train": 64, "validation": 16, "test": 20}
    every = [name for ids in miniimagenet_contents.CLASSES.values() for name in ids]
    assert len(set(every)) == 100
    assert all(len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in every)


def test_a_class_below_600_is_a_warning_that_lists_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(miniimagenet_contents, "CLASSES", fixtures.CLASSES)
    root = fixtures.write_folders(tmp_path / "source")
    prepared(root, tmp_path / "data")
    error = capsys.readouterr().err
    assert "warning: 7 classes have fewer than 600 images: n01532829: 4, n01558993: 4" in error


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda r: shutil.rmtree(r / "train/n01558993"), "class n01558993 of train is missing"),
        (lambda r: shutil.rmtree(r / "val"), "validation is missing"),
        (
            lambda r: shutil.copytree(r / "test/n01930112", r / "train/n01930112"),
            "class n01930112 is in both train and test",
        ),
        (
            lambda r: shutil.copytree(r / "test/n01930112", r / "test/n00000001"),
            "class n00000001 does not belong to test",
        ),
        (
            lambda r: shutil.copy(
                r / "train/n01532829/n01532829_0.JPEG", r / "train/n01532829/n01532829_9.JPEG"
            ),
            "class n01532829 of train has 5 images, not 4",
        ),
        (
            lambda r: [p.unlink() for p in (r / "test/n01981276").glob("*_[012].JPEG")],
            "class n01981276 of test has 1 images, not 2",
        ),
    ],
)
def test_what_is_incomplete_is_told(change, phrase, small, tmp_path):
    root = fixtures.write_folders(tmp_path / "source")
    change(root)
    assert_refused(root, tmp_path / "data", "is incomplete or not miniimagenet", phrase)


def test_a_mini_imagenet_of_another_split_is_refused(small, tmp_path):
    root = fixtures.write_folders(tmp_path / "source")
    shutil.move(root / "test/n01930112", root / "train/n01930112")
    assert_refused(root, tmp_path / "data", "class n01930112 does not belong to train")


@pytest.mark.parametrize("layout", ["lists", "imagenet"])
def test_a_listed_picture_that_is_not_there(layout, small, tmp_path, monkeypatch):
    root = fixtures.LAYOUTS[layout](tmp_path / "source")
    with (root / "train.csv").open("a") as file:
        file.write("n0153282900000099.jpg,n01532829\n")
    monkeypatch.setattr(miniimagenet_contents, "IMAGES_PER_CLASS", fixtures.PER_CLASS + 1)
    assert_refused(
        root, tmp_path / "data", "1 of the 29 images", "n0153282900000099.jpg is missing"
    )


def test_lists_that_are_none(small, tmp_path):
    root = fixtures.write_lists(tmp_path / "source")
    (root / "val.csv").write_text("filename,label\n../../etc/passwd,n01855672\n")
    assert_refused(root, tmp_path / "data", "val.csv is not a list of pictures: unexpected line")


def test_an_imagenet_tar_without_lists(small, tmp_path):
    root = fixtures.write_imagenet(tmp_path / "source")
    for path in root.glob("*.csv"):
        path.unlink()
    assert_refused(root, tmp_path / "data", "put train.csv, val.csv and test.csv next to it")


# ------------------------------------------------------------------------- damaged pictures


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<html>404 not found</html>", "is no image that Pillow reads"),
        (fixtures.encoded(fixtures.pixels("n01532829", 0), "JPEG")[:-900], "is damaged"),
        (fixtures.encoded(fixtures.pixels("n01532829", 0))[:900], "is damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image that Pillow reads"),
        (fixtures.encoded(Image.new("F", (5, 5)), "TIFF"), "pixels of 32 bits"),
    ],
    ids=["empty", "text", "truncated jpeg", "truncated png", "postscript", "float"],
)
@pytest.mark.parametrize("layout", ["folders", "lists"])
def test_a_damaged_picture_is_told_by_name(layout, content, reason, small, tmp_path):
    root = fixtures.LAYOUTS[layout](tmp_path / "source")
    victim = sorted(root.rglob("*n01855672*.*g") if layout == "lists" else root.rglob("*.JPEG"))[3]
    victim.write_bytes(content)
    message = assert_refused(root, tmp_path / "data", "1 of the 28 images", reason)
    assert victim.name in message


def test_many_damaged_pictures_are_counted(small, tmp_path):
    """As the authors' downloader left them: empty, in silence."""
    root = fixtures.write_folders(tmp_path / "source")
    for path in sorted(root.rglob("*.JPEG"))[:9]:
        path.write_bytes(b"")
    message = assert_refused(root, tmp_path / "data", "9 of the 28 images", "and 4 more")
    assert message.count("is empty") == 5


def test_unusual_pictures_are_read_right():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    np.testing.assert_array_equal(decode(fixtures.encoded(grey), 16, "nearest"), rgb)
    deep = (grey.astype(np.uint16) << 8) + 77
    np.testing.assert_array_equal(decode(fixtures.encoded(deep), 16, "nearest"), rgb)
    alpha = Image.fromarray(rgb).convert("RGBA")
    np.testing.assert_array_equal(decode(fixtures.encoded(alpha), 16, "nearest"), rgb)
    palette = Image.fromarray(rgb).convert("P")
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode(fixtures.encoded(palette), 16, "bicubic"), expected)
    cmyk = fixtures.encoded(Image.new("CMYK", (30, 20), (0, 255, 255, 0)), "JPEG", quality=100)
    red = decode(cmyk, 8, "nearest")
    assert np.abs(red.astype(int) - (255, 0, 0)).max() <= 3


def test_resizing_is_the_authors():
    """Resize, then RGB, no cropping; nearest is the middle of each cell."""
    image = fixtures.pixels("n01532829", 0, 84 * 3)
    content = fixtures.encoded(image)
    np.testing.assert_array_equal(decode(content, 84, "nearest"), image[1::3, 1::3])
    pillow = Image.fromarray(image).resize((84, 84), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(decode(content, 84, "bicubic"), np.asarray(pillow))
    assert decode(fixtures.encoded(image[:100]), 21, "nearest").shape == (21, 21, 3)


# ---------------------------------------------------------------------- pickles and tarfiles


class Hostile:
    def __init__(self, action):
        self.action = action

    def __reduce__(self):
        return self.action


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_hostile_pickle_does_nothing(wrapped, protocol, small, tmp_path):
    harm = tmp_path / "harm"
    for action in ((os.system, (f"touch {harm}",)), (eval, (f"open({str(harm)!r}, 'w')",))):
        content = {"image_data": Hostile(action)} if wrapped else Hostile(action)
        root = fixtures.write_pickles(tmp_path / "source")
        (root / "mini-imagenet-cache-train.pkl").write_bytes(pickle.dumps(content, protocol))
        assert_refused(root, tmp_path / "data", "is refused: it asks for", "not for an array")
        assert not harm.exists()


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"image_data": np.array([{1}, print], dtype=object)}),
        pickle.dumps(np.zeros(3, dtype=[("a", "O")])),
        b"cnumpy\nload\n(S'/etc/passwd'\ntR.",
        b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
        b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'ctypes'\ntR.",
        pickle.dumps(Path("/")),
    ],
)
def test_a_pickle_may_ask_for_arrays_only(content, tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"x\.pkl is refused"):
        load_arrays(path)


def test_damaged_pickles(small, tmp_path):
    for content in (b"", b"no pickle", pickle.dumps(np.zeros((9, 9)))[:60]):
        path = tmp_path / "x.pkl"
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"x\.pkl is damaged or no pickle of arrays"):
            load_arrays(path)
    root = fixtures.write_pickles(tmp_path / "source")
    images, rows = np.zeros((4, 84, 84, 3), np.uint8), {"n01532829": [0, 1, 2, 3]}
    for wrong, phrase in (
        ([1, 2], "has not image_data and class_dict"),
        ({"image_data": images}, "has not image_data and class_dict"),
        ({"image_data": images.astype(float), "class_dict": rows}, "must be uint8"),
        ({"image_data": images[:3], "class_dict": rows}, "rows that image_data has not"),
        ({"image_data": images, "class_dict": {"a": [-1, 0]}}, "rows that image_data has not"),
        ({"image_data": images, "class_dict": {"a": [0, 1], "b": [1]}}, "or one twice"),
    ):
        (root / "mini-imagenet-cache-train.pkl").write_bytes(pickle.dumps(wrong))
        assert_refused(root, tmp_path / "data", phrase)


@pytest.mark.parametrize(
    ("name", "kind", "link", "phrase"),
    [
        ("/etc/n01532829_1.JPEG", tarfile.REGTYPE, "", "has an absolute path"),
        ("../n01532829_1.JPEG", tarfile.REGTYPE, "", "outside the target folder"),
        ("n01532829_1.JPEG", tarfile.SYMTYPE, "/etc/passwd", "is a link or a device"),
        ("n01532829_1.JPEG", tarfile.LNKTYPE, "n01532829_9.JPEG", "is a link or a device"),
        ("n01532829_1.JPEG", tarfile.CHRTYPE, "", "is a link or a device"),
    ],
)
@pytest.mark.parametrize("where", ["change_inner", "change_outer"])
def test_a_tar_with_links_or_absolute_paths(where, name, kind, link, phrase, small, tmp_path):
    def change(archive):
        fixtures.add_bytes(archive, name, b"", kind, link)

    root = fixtures.write_imagenet(tmp_path / "source", **{where: change})
    assert_refused(root, tmp_path / "data", "is refused: member", phrase)


def test_a_truncated_tar(small, tmp_path):
    root = fixtures.write_imagenet(tmp_path / "source")
    path = root / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[:400_000])
    assert_refused(root, tmp_path / "data", "is truncated, damaged or not a tar")
    path.write_bytes(b"no tar at all" * 99)
    assert_refused(root, tmp_path / "data", "is truncated, damaged or not a tar")


# ------------------------------------------------------------------------ images of one's own


def test_any_folder_of_images(tmp_path, capsys):
    own = tmp_path / "my flowers"
    kinds = {"rose": "PNG", "tulip": "BMP", "lily": "GIF", "iris": "WEBP", "aster": "TIFF"}
    for split, classes in {"train": ("rose", "tulip", "lily"), "test": ("iris", "aster")}.items():
        for name in classes:
            (own / split / name).mkdir(parents=True)
            for i in range(2 + len(name)):
                kind, image = kinds[name], fixtures.pixels("n00000001", i, 20 + i)
                (own / split / name / f"{i}.{kind.lower()}").write_bytes(
                    fixtures.encoded(image, kind)
                )
    (own / "train/rose/notes.txt").write_text("a rose")
    (own / "train/rose/.DS_Store").write_text("")
    (own / "readme.md").write_text("")
    dataset = prepared(own, tmp_path / "data", name="folder:my flowers", size=16)
    assert "warning" in (error := capsys.readouterr().err)
    assert "not images were left out: 1 .txt" in error
    assert dataset.name == "folder:my flowers"
    assert {s: len(ids) for s, ids in dataset.splits.items()} == {"train": 3, "test": 2}
    assert dataset.class_names == ("lily", "rose", "tulip", "aster", "iris")
    assert dataset.class_sizes("train").tolist() == [6, 6, 7]
    assert dataset.images.shape == (6 + 6 + 7 + 7 + 6, 16, 16, 3)


def test_a_folder_is_named_never_mini_imagenet(small, tmp_path):
    root = fixtures.write_folders(tmp_path / "miniimagenet")
    dataset = prepared(root, tmp_path / "data", name="folder:miniimagenet")
    assert dataset.name == "folder:miniimagenet"


def test_a_data_dir_that_is_the_data_set_stays_untouched(tmp_path, monkeypatch):
    own = fixtures.write_zips(tmp_path / "flowers")
    before = fixtures.tree_state(own)
    monkeypatch.setenv("SUPERVISED_REPTILE_DATA", str(tmp_path / "data"))
    dataset = load_dataset("folder:flowers", data_dir=own, image_size=10, progress=False)
    assert dataset.images.shape == (28, 10, 10, 3)
    assert fixtures.tree_state(own) == before
    assert (tmp_path / "data/flowers/10-nearest/1.0.0/images.npy").is_file()
    # By name, from the data directory, without the source.
    shutil.rmtree(own)
    again = load_dataset("folder:flowers", data_dir=tmp_path / "data", image_size=10)
    np.testing.assert_array_equal(again.images, dataset.images)


def test_real_photographs(tiny_imagenet, tmp_path, monkeypatch):
    monkeypatch.setenv("SUPERVISED_REPTILE_DATA", str(tmp_path))
    name = "folder:tiny-imagenet-fewshot"
    dataset = load_dataset(name, data_dir=tiny_imagenet, image_size=21, progress=False)
    sizes = {s: np.unique(dataset.class_sizes(s)).tolist() for s in dataset.splits}
    assert sizes == {"train": [400], "validation": [200], "test": [200]}
    assert [len(ids) for ids in dataset.splits.values()] == [64, 16, 20]
    with zipfile.ZipFile(tiny_imagenet / "test.zip") as archive:
        for class_id in dataset.splits["test"]:
            folder = f"test/{dataset.class_names[class_id]}/"
            names = (name for name in archive.namelist() if name.startswith(folder))
            members = sorted(name for name in names if name != folder)
            for i in (0, 7, 199):  # the authors' order: resize, then RGB
                picture = Image.open(io.BytesIO(archive.read(members[i])))
                expected = picture.resize((21, 21), Image.Resampling.NEAREST).convert("RGB")
                row = dataset.class_offsets[class_id] + i
                np.testing.assert_array_equal(dataset.images[row], np.asarray(expected))


def test_nothing_there(tmp_path):
    with pytest.raises(
        DatasetNotFoundError, match=r"run \./fetch_data\.sh miniimagenet --data_dir"
    ):
        load_dataset("miniimagenet", data_dir=tmp_path)
    with pytest.raises(DatasetNotFoundError, match="--image_size 32 --resize bicubic, or give"):
        load_dataset("miniimagenet", data_dir=tmp_path, image_size=32, resize="bicubic")
    with pytest.raises(DatasetNotFoundError, match=r"has no train/ and test/ with a folder"):
        load_dataset("folder:flowers", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {},
            "--train_shots: must be at most 4, the images of its smallest class (15 is the "
            "default, paper, Table 4 (5-shot); pass --train_shots=4 or less). Received: 15",
        ),
        (
            {"classes": 2, "shots": 4, "train_shots": 4},
            "--shots: shots + 1 must be at most 4, the images of its smallest class. Received: 4",
        ),
        (
            {"classes": 5, "shots": 1, "train_shots": 4},
            "--classes: must be at most 2, the classes of the validation split of folder:flowers "
            "(5 is the default, original's default; pass --classes=2 or less). Received: 5",
        ),
    ],
)
def test_too_few_images_are_told_before_any_is_decoded(values, message, tmp_path, monkeypatch):
    config = paper_config("folder:flowers", **{"classes": 2, "shots": 3} | values)
    fixtures.write_folders(tmp_path / "flowers")
    monkeypatch.setattr(arrays, "decode", lambda *_, **options: pytest.fail("decoded"))
    with pytest.raises(ConfigError) as caught:
        load_data(config, RunOptions(data_dir=str(tmp_path), progress=False))
    assert str(caught.value) == message
    assert not list(tmp_path.rglob("images.npy"))


# ------------------------------------------------------------------------------ stored images


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A data set with its source in the data directory."""
    return fixtures.write_folders(tmp_path / "data" / "flowers")


def load_own(tmp_path, **options):
    return load_dataset("folder:flowers", data_dir=tmp_path / "data", progress=False, **options)


def test_decoding_happens_once(own, tmp_path, monkeypatch):
    first = load_own(tmp_path)
    stored = tmp_path / "data/flowers/84-nearest/1.0.0/images.npy"
    written = stored.stat().st_mtime_ns
    code = f"""
import sys
from supervised_reptile.datasets import load_dataset
images = load_dataset("folder:flowers", data_dir={str(tmp_path / "data")!r}).images
assert "tensorflow_datasets" not in sys.modules and "tensorflow" not in sys.modules
print(images.shape, images[5, 3, 2, 1])
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.stdout.split() == [
        *str(first.images.shape).split(),
        str(first.images[5, 3, 2, 1]),
    ]
    assert stored.stat().st_mtime_ns == written


def test_a_changed_source_is_noticed(own, tmp_path, capsys):
    load_own(tmp_path)
    path = own / "train/n01532829/n01532829_0.JPEG"
    path.write_bytes(fixtures.encoded(fixtures.pixels("n00000001", 1)))
    images = load_own(tmp_path).images
    assert "has changed since it was prepared; preparing it again" in capsys.readouterr().err
    np.testing.assert_array_equal(images[0], fixtures.pixels("n00000001", 1))
    (own / "train/n01532829/n01532829_3.JPEG").unlink()
    assert len(load_own(tmp_path).images) == 27
    assert "preparing it again" in capsys.readouterr().err
    load_own(tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("cut", ["images.npy", "images.json", "whole"])
def test_a_cut_short_cache_is_rebuilt(cut, own, tmp_path, capsys):
    expected = np.array(load_own(tmp_path).images)
    stored = tmp_path / "data/flowers/84-nearest/1.0.0"
    if cut == "whole":
        (stored / "images.npy").unlink()
    else:
        with (stored / cut).open("r+b") as file:
            file.truncate((stored / cut).stat().st_size - 100)
    np.testing.assert_array_equal(load_own(tmp_path).images, expected)
    assert "is damaged or cut short" in capsys.readouterr().err


def test_a_cut_short_cache_without_its_source_is_not_used(own, tmp_path):
    load_own(tmp_path)
    for split in ("train", "val", "test"):
        shutil.rmtree(own / split)
    assert load_own(tmp_path).images.shape == (28, 84, 84, 3)
    with (own / "84-nearest/1.0.0/images.npy").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(DatasetError, match=r"cut short: .*; delete that folder"):
        load_own(tmp_path)


def test_prepared_images_are_judged_by_the_source_they_were_made_from(small, tmp_path, capsys):
    """Not by what else lies about: here what the authors' downloader left."""
    root = fixtures.write_lists(tmp_path / "source")
    prepared(root, tmp_path / "data")
    leftover = fixtures.write_folders(tmp_path / "data" / "miniimagenet")
    (leftover / "train/n01532829/n01532829_0.JPEG").write_bytes(b"")
    dataset = load_dataset("miniimagenet", data_dir=tmp_path / "data")
    np.testing.assert_array_equal(dataset.images, fixtures.expected_images())
    with (store_in(tmp_path / "data").path / "images.npy").open("r+b") as file:
        file.truncate(5000)
    dataset = load_dataset("miniimagenet", data_dir=tmp_path / "data", progress=False)
    np.testing.assert_array_equal(dataset.images, fixtures.expected_images())
    assert "cut short" in capsys.readouterr().err


def test_another_folder_of_the_same_name_is_noticed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SUPERVISED_REPTILE_DATA", str(tmp_path / "data"))
    for place, per_class in (("here", 2), ("there", 3)):
        own = fixtures.write_folders(tmp_path / place / "flowers", per_class=per_class)
        dataset = load_dataset("folder:flowers", data_dir=own, image_size=10, progress=False)
        assert len(dataset.images) == 7 * per_class
    assert "preparing it again" in capsys.readouterr().err


def test_preparing_again_checks_every_byte(small, tmp_path):
    root = fixtures.write_folders(tmp_path / "source")
    prepared(root, tmp_path / "data")
    stored = store_in(tmp_path / "data").path / "images.npy"
    with stored.open("r+b") as file:
        file.seek(99_999)
        file.write(b"\x00\x01\x02\x03")
    dataset = prepared(root, tmp_path / "data")
    np.testing.assert_array_equal(dataset.images, fixtures.expected_images())


def test_a_killed_preparation_leaves_nothing_that_looks_finished(own, tmp_path):
    code = f"""
import os, signal
from supervised_reptile.datasets import load_dataset
from supervised_reptile.datasets.images import arrays as image_arrays
calls = []
def decode(*args, original=image_arrays.decode, **options):
    calls.append(1)
    if len(calls) > 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **options)
image_arrays.decode = decode
load_dataset("folder:flowers", data_dir={str(tmp_path / "data")!r}, progress=False)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert [path.name[:11] for path in (own / "84-nearest").iterdir()] == ["incomplete."]
    assert len(load_own(tmp_path).images) == 28
    assert [path.name for path in (own / "84-nearest").iterdir()] == ["1.0.0"]


def test_sizes_and_filters_are_stored_apart(own, tmp_path):
    nearest, bicubic = (load_own(tmp_path, image_size=7, resize=r) for r in ("nearest", "bicubic"))
    assert nearest.images.shape == bicubic.images.shape == (28, 7, 7, 3)
    assert (nearest.images != bicubic.images).any()
    path = own / "train/n01532829/n01532829_0.JPEG"
    np.testing.assert_array_equal(bicubic.images[0], decode(path, 7, "bicubic"))


def test_tensorflow_datasets_reads_it_too(small, tmp_path):
    from supervised_reptile.datasets.images.photographs_builder import Photographs

    root = fixtures.write_folders(tmp_path / "source")
    prepared(root, tmp_path / "data")
    builder = Photographs(store_in(tmp_path / "data"), None, url="", progress=False)
    records = list(builder.as_dataset(split="test").as_numpy_iterator())
    assert [r["class"].decode() for r in records] == ["n01930112"] * 4 + ["n01981276"] * 4
    np.testing.assert_array_equal(records[5]["image"], fixtures.pixels("n01981276", 1))


# ------------------------------------------------------------------- download, command line


@pytest.fixture
def mirror(small, tmp_path, monkeypatch):
    """A server with the three pickles, under the checksums they have."""
    root = fixtures.write_pickles(tmp_path / "mirror", validation="validation")
    files = {
        split: miniimagenet_contents.PickleFile(
            (path := root / f"mini-imagenet-cache-{split}.pkl").name,
            path.stat().st_size,
            hashlib.md5(path.read_bytes()).hexdigest(),
        )
        for split in fixtures.CLASSES
    }
    monkeypatch.setattr(miniimagenet_contents, "PICKLES", files)
    with serving(root) as server:
        yield server


def fetch(*arguments):
    return exit_code(command_line.main, ["fetch_data.sh", "miniimagenet", *arguments])


def test_download_shows_the_terms_first(mirror, tmp_path, capsys):
    arguments = (f"--url={mirror.url}", f"--data_dir={tmp_path / 'data'}")
    assert fetch(*arguments) == 0
    output = capsys.readouterr().out
    assert "non-commercial research and educational purposes" in output
    assert "python run_miniimagenet.py" in output.splitlines()[-1]
    assert len(mirror.requests) == 3
    images = load_dataset("miniimagenet", data_dir=tmp_path / "data").images
    np.testing.assert_array_equal(images, fixtures.expected_images())
    assert fetch(*arguments) == 0
    assert len(mirror.requests) == 3
    # Another size is made from the files that are there.
    assert fetch(*arguments, "--image_size=10") == 0
    assert len(mirror.requests) == 3


def test_a_download_that_is_not_the_expected_file(mirror, tmp_path, capsys):
    path = mirror.folder / "mini-imagenet-cache-test.pkl"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    arguments = (f"--url={mirror.url}", f"--data_dir={tmp_path / 'data'}")
    assert fetch(*arguments) == 1
    assert "mini-imagenet-cache-test.pkl is not the expected file" in capsys.readouterr().err
    assert not list((tmp_path / "data").rglob("*.npy"))
    path.write_bytes(content)
    mirror.requests.clear()
    assert fetch(*arguments) == 0
    assert mirror.requests == [path.name]  # the verified ones were kept


def test_command_line(small, tmp_path, capsys):
    source, data = fixtures.write_lists(tmp_path / "source"), f"--data_dir={tmp_path / 'data'}"
    fixtures.write_pickles(source)
    assert fetch(f"--from={source}", data, "--layout=lists", "--image_size=9") == 0
    command = "--dataset 'miniimagenet' --image_size 9\n"
    assert capsys.readouterr().out.endswith(command)
    assert (tmp_path / "data/miniimagenet/9-nearest/1.0.0/images.npy").is_file()
    for arguments, phrase in (
        ([f"--from={tmp_path / 'nowhere'}"], "nowhere is not a folder"),
        ([f"--from={tmp_path}"], "does not hold miniimagenet in any layout listed in --help"),
        ([f"--from={source}", "--layout=imagenet"], "in the layout 'imagenet'"),
    ):
        assert fetch(*arguments, data) == 1
        error = capsys.readouterr().err
        assert phrase in error
        assert error.startswith("fetch_data.sh: ")
        assert error.count("\n") == 1
    own = fixtures.write_zips(tmp_path / "flowers")
    words = ["fetch_data.sh", "folder", f"--from={own}", data]
    assert exit_code(command_line.main, words) == 0
    assert "--dataset 'folder:flowers'" in capsys.readouterr().out
