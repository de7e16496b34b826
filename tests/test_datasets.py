import hashlib
import io
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supervised_reptile.datasets import DatasetNotFoundError, FewShotDataset, load_dataset
from supervised_reptile.datasets.characters import build_character_dataset, split_characters

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def omniglot(prepared_omniglot: Path) -> FewShotDataset:
    return load_dataset("omniglot", data_dir=prepared_omniglot, seed=0, progress=False)


@pytest.fixture(scope="module")
def glyphs() -> FewShotDataset:
    return load_dataset("glyphs", data_dir="unused", seed=0, progress=False)


def images_of(dataset: FewShotDataset, class_id: int) -> np.ndarray:
    start, stop = dataset.class_offsets[class_id : class_id + 2]
    return dataset.images[start:stop]


def nearest_neighbour_accuracy(dataset: FewShotDataset, tasks: int = 500) -> float:
    """1-shot 5-way accuracy of the nearest image, pixel by pixel, on test classes."""
    rng = np.random.default_rng(0)
    right = 0
    for _ in range(tasks):
        classes = rng.choice(dataset.splits["test"], 5, replace=False)
        pairs = np.stack(
            [
                images_of(dataset, c)[rng.choice(20, 2, replace=False)].reshape(2, -1)
                for c in classes
            ]
        ).astype(np.float32)
        distances = ((pairs[:, 1, None] - pairs[None, :, 0]) ** 2).sum(-1)
        right += (distances.argmin(axis=1) == np.arange(5)).sum()
    return right / (5 * tasks)


# What Omniglot and the glyphs have in common.


@pytest.mark.parametrize("name", ["omniglot", "glyphs"])
def test_shapes_values_and_split_sizes(name: str, request: pytest.FixtureRequest) -> None:
    dataset = request.getfixturevalue(name)
    assert dataset.name == name
    assert dataset.images.shape == (4800 * 20 + 423 * 20, 28, 28, 1)
    assert dataset.images.dtype == np.uint8
    assert set(np.unique(dataset.images)) == {0, 1}
    assert dataset.images.mean() > 0.8  # ink is 0, and most of the page is paper
    assert dataset.pixel_scale == 1.0
    assert list(dataset.splits) == ["train", "test"]
    assert (dataset.class_sizes("train") == 20).all() and len(dataset.splits["train"]) == 4800
    assert (dataset.class_sizes("test") == 20).all() and len(dataset.splits["test"]) == 423
    assert len(set(dataset.class_names)) == 5223


@pytest.mark.parametrize("name", ["omniglot", "glyphs"])
def test_no_character_is_on_both_sides(name: str, request: pytest.FixtureRequest) -> None:
    dataset = request.getfixturevalue(name)
    characters = {
        split: {"/".join(dataset.class_names[c].split("/")[:2]) for c in ids}
        for split, ids in dataset.splits.items()
    }
    assert len(characters["train"]) == 1200 and len(characters["test"]) == 423
    assert not characters["train"] & characters["test"]
    assert not any("rot" in dataset.class_names[c].split("/")[-1] for c in dataset.splits["test"])


@pytest.mark.parametrize("name", ["omniglot", "glyphs"])
def test_rotated_classes_are_pil_rotations(name: str, request: pytest.FixtureRequest) -> None:
    dataset = request.getfixturevalue(name)
    for first in (0, 4 * 17, 4796):
        upright = images_of(dataset, first)[..., 0]
        for turn in (1, 2, 3):
            degrees = 90 * turn
            expected = [
                np.asarray(Image.fromarray(x.astype(bool)).rotate(degrees), np.uint8)
                for x in upright
            ]
            np.testing.assert_array_equal(images_of(dataset, first + turn)[..., 0], expected)
            assert dataset.class_names[first + turn] == f"{dataset.class_names[first]}/rot{degrees}"


def test_split_is_one_shuffle_by_pythons_generator() -> None:
    # By hand, as the original program does it: seed the global generator, shuffle, cut.
    state = random.getstate()
    random.seed(3)
    characters = list(range(1623))
    random.shuffle(characters)
    random.setstate(state)
    assert split_characters(1623, seed=3) == (characters[:1200], characters[1200:])


def test_other_seed_other_split() -> None:
    assert split_characters(1623, seed=0) != split_characters(1623, seed=1)


@pytest.mark.parametrize("num_train", [0, 5, 6])
def test_empty_split_is_refused(num_train: int) -> None:
    with pytest.raises(ValueError, match=f"num_train .* Received: {num_train} of 5"):
        split_characters(5, seed=0, num_train=num_train)


def test_class_order_by_hand() -> None:
    # Three characters of one 2x2 drawing each; seed 0 shuffles [0, 1, 2] to [0, 2, 1].
    drawings = np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2, 1)
    dataset = build_character_dataset("tiny", drawings, ["a/1", "a/2", "b/1"], seed=0, num_train=1)
    assert dataset.class_names == ("a/1", "a/1/rot90", "a/1/rot180", "a/1/rot270", "b/1", "a/2")
    np.testing.assert_array_equal(
        dataset.images[..., 0].reshape(6, 4),
        # [[0, 1], [2, 3]] turned counter-clockwise is [[1, 3], [0, 2]], and so on.
        [[0, 1, 2, 3], [1, 3, 0, 2], [3, 2, 1, 0], [2, 0, 3, 1], [8, 9, 10, 11], [4, 5, 6, 7]],
    )


# Names


def test_unknown_name() -> None:
    with pytest.raises(
        ValueError, match=r"one of folder:NAME, glyphs, miniimagenet, omniglot\. Received: 'mnist'"
    ):
        load_dataset("mnist", data_dir="unused", seed=0)


def test_absent_omniglot_names_both_remedies(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as error:
        load_dataset("omniglot", data_dir=tmp_path, seed=0, progress=False)
    message = str(error.value)
    assert "./fetch_data.sh" in message and "--dataset glyphs" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_tfds_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys; from supervised_reptile.datasets import load_dataset, glyphs; "
        "print('tensorflow_datasets' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "False"


# Omniglot


def test_omniglot_images_equal_the_archive_shrunk_by_hand(
    omniglot: FewShotDataset, omniglot_archives: Path
) -> None:
    with zipfile.ZipFile(omniglot_archives / "images_evaluation.zip") as archive:
        members = archive.namelist()
        checked = 0
        for class_id in omniglot.splits["test"][:60]:
            folder = f"images_evaluation/{omniglot.class_names[class_id]}/"
            names = sorted(n for n in members if n.startswith(folder) and n.endswith(".png"))
            if not names:
                continue  # of the other archive
            by_hand = [
                np.array(Image.open(io.BytesIO(archive.read(name))).resize((28, 28)))
                for name in names
            ]
            np.testing.assert_array_equal(images_of(omniglot, class_id)[..., 0], by_hand)
            checked += 1
    assert checked > 10


def test_omniglot_split_matches_sorted_folders(
    omniglot: FewShotDataset, omniglot_archives: Path
) -> None:
    characters = set()
    for name in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(omniglot_archives / f"{name}.zip") as archive:
            characters |= {tuple(n.split("/")[1:3]) for n in archive.namelist() if ".png" in n}
    order = sorted(characters)
    random.Random(0).shuffle(order)
    expected = tuple("/".join(c) for c in order)
    assert tuple(omniglot.class_names[c] for c in range(0, 4800, 4)) == expected[:1200]
    assert tuple(omniglot.class_names[c] for c in omniglot.splits["test"]) == expected[1200:]


def test_omniglot_loads_the_same_again(omniglot: FewShotDataset, prepared_omniglot: Path) -> None:
    again = load_dataset("omniglot", data_dir=prepared_omniglot, seed=0, progress=False)
    assert again.class_names == omniglot.class_names
    np.testing.assert_array_equal(again.images, omniglot.images)


# Glyphs


def test_glyphs_are_the_same_in_another_process(glyphs: FewShotDataset) -> None:
    code = (
        "import hashlib; from supervised_reptile.datasets import load_dataset; "
        "d = load_dataset('glyphs', data_dir='unused', seed=0, progress=False); "
        "print(hashlib.sha256(d.images.tobytes()).hexdigest())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == hashlib.sha256(glyphs.images.tobytes()).hexdigest()


def test_glyph_shapes_do_not_depend_on_the_seed(glyphs: FewShotDataset) -> None:
    other = load_dataset("glyphs", data_dir="unused", seed=1, progress=False)
    assert other.class_names != glyphs.class_names
    shared = [name for name in glyphs.class_names[:400:20] if name in other.class_names]
    assert len(shared) > 5
    for name in shared:
        here, there = glyphs.class_names.index(name), other.class_names.index(name)
        np.testing.assert_array_equal(images_of(glyphs, here), images_of(other, there))


def test_glyph_drawings_all_differ(glyphs: FewShotDataset) -> None:
    for class_id in (*range(0, 4800, 4), *glyphs.splits["test"]):
        drawings = {drawing.tobytes() for drawing in images_of(glyphs, class_id)}
        assert len(drawings) == 20, glyphs.class_names[class_id]


def test_glyphs_are_neither_trivial_nor_noise(glyphs: FewShotDataset) -> None:
    # Chance is 0.2; real Omniglot gives 0.38, the glyphs 0.39, and one clean font would give 1.
    assert 0.33 < nearest_neighbour_accuracy(glyphs) < 0.48


def test_nearest_neighbour_on_omniglot(omniglot: FewShotDataset) -> None:
    assert 0.33 < nearest_neighbour_accuracy(omniglot) < 0.48
