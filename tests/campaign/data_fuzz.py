"""Damages archives, pickles, pictures, trees of images and prepared data, and counts what happens.

    python -m campaign.data_fuzz --cases 2000 --seed 0     (from the folder tests)

Each case takes something sound, changes it at random and reads it. What came of it:

* same: the very data of the sound one.
* refused: one clear line, a ``DatasetError`` (a ``ValueError`` of a picture).
* reported: other data, and a warning said what was left out.
* other: other data of the right form where the format has no checksum that could tell: the
  pixels of a JPEG, the numbers in a pickle.
* traceback: any other error.
* wrong: other data, and not a word.

The last two must be zero.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from campaign.data_kinds import (
    CLASSES,
    IMAGES,
    KINDS,
    SIZE,
    Kind,
    Reader,
    Rng,
    expected_of_tree,
    mutate,
    write_folders,
)
from supervised_reptile.config.command_line import Flag, run_program
from supervised_reptile.datasets.images import miniimagenet
from supervised_reptile.datasets.images.photographs import load, prepare
from supervised_reptile.datasets.images.sources import ClassFolders
from supervised_reptile.datasets.images.store import ImageStore
from supervised_reptile.errors import DatasetError

OUTCOMES = ("same", "refused", "reported", "other", "traceback", "wrong")
_VARIANTS = 12


def _store(root: Path) -> ImageStore:
    return ImageStore("folder:x", root, SIZE, "nearest")


def _read_prepared(root: Path) -> object:
    data = load(_store(root), progress=False)
    splits = {split: ids.tolist() for split, ids in data.splits.items()}
    offsets = data.class_offsets.tolist()
    return data.images.tobytes(), offsets, data.class_names, splits, data.fingerprint


@contextlib.contextmanager
def _small_mini_imagenet():
    before = miniimagenet.CLASSES, miniimagenet.IMAGES_PER_CLASS
    names = {"train": "train", "val": "validation", "test": "test"}
    miniimagenet.CLASSES = {names[split]: ids for split, ids in CLASSES.items()}
    miniimagenet.IMAGES_PER_CLASS = IMAGES
    try:
        yield
    finally:
        miniimagenet.CLASSES, miniimagenet.IMAGES_PER_CLASS = before


def _outcome(read: Reader, root: Path, sound: object, checked: bool) -> tuple[str, str]:
    """What comes of reading, and what was said meanwhile."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read(root)
    except DatasetError as error:
        return "refused" if str(error).isprintable() else "traceback", ""
    except Exception:
        traceback.print_exc(limit=-3)
        return "traceback", ""
    if found == sound:
        return "same", said.getvalue()
    if said.getvalue():
        return "reported", said.getvalue()
    return "wrong" if checked else "other", ""


def fuzz(kind: str, cases: int, seed: int = 0) -> Counter[str]:
    """Damage one kind of input, and count what happens.

    Args:
        kind: A key of `KINDS`.
        cases: How many inputs.
        seed: Of the damage.
    """
    each, counts = KINDS[kind], Counter(dict.fromkeys(OUTCOMES, 0))
    with _small_mini_imagenet(), tempfile.TemporaryDirectory() as folder:
        sound = [_Sound(each, Path(folder), variant) for variant in range(min(cases, _VARIANTS))]
        for case in range(cases):
            rng = np.random.default_rng([seed, case])
            outcome = sound[case % _VARIANTS].damaged(rng)
            if outcome in ("wrong", "traceback"):
                print(f"{kind}, seed {seed}, case {case}: {outcome}", file=sys.stderr)
            counts[outcome] += 1
    return counts


class _Sound:
    """A sound input, which is damaged and mended again and again."""

    def __init__(self, kind: Kind, folder: Path, variant: int) -> None:
        self._kind, self._root = kind, folder / str(variant)
        self._root.mkdir()
        self._paths = kind.write(self._root, variant)
        with contextlib.redirect_stderr(io.StringIO()):
            self._data = kind.read(self._root)

    def damaged(self, rng: Rng) -> str:
        """What comes of it when it is damaged."""
        if self._kind.damage:
            return self._damaged_tree(rng)
        victim = self._paths[int(rng.integers(len(self._paths)))]
        content = victim.read_bytes()
        victim.write_bytes(mutate(content, rng))
        outcome, _ = _outcome(self._kind.read, self._root, self._data, self._kind.checked)
        victim.write_bytes(content)
        return outcome

    def _damaged_tree(self, rng: Rng) -> str:
        """A tree that has lost an image is another tree: it must be read as it is."""
        with tempfile.TemporaryDirectory(dir=self._root.parent) as folder:
            root = Path(folder) / "tree"
            shutil.copytree(self._root, root)
            for _ in range(int(rng.integers(1, 3))):
                self._kind.damage(root, rng)
            expected, rest = expected_of_tree(root)
            outcome, said = _outcome(self._kind.read, root, expected, True)
        return "wrong" if outcome == "same" and rest and not said else outcome


def fuzz_prepared(cases: int, seed: int = 0) -> Counter[str]:
    """Damage prepared photographs whose source is gone, and count what happens."""
    counts = Counter(dict.fromkeys(OUTCOMES, 0))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_folders(root / "source")
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            prepare(_store(root), ClassFolders(root / "source"), progress=False)
        shutil.rmtree(root / "source")
        sound, place = _read_prepared(root), _store(root).path
        files = sorted(path for path in place.iterdir() if path.is_file())
        for case in range(cases):
            rng = np.random.default_rng([seed, case])
            victim = files[int(rng.integers(len(files)))]
            content = victim.read_bytes()
            victim.write_bytes(mutate(content, rng))
            outcome, _ = _outcome(_read_prepared, root, sound, checked=True)
            if outcome in ("wrong", "traceback"):
                print(f"prepared, seed {seed}, case {case}: {outcome}", file=sys.stderr)
            counts[outcome] += 1
            victim.write_bytes(content)
    return counts


def run(cases: int, seed: int = 0) -> dict[str, dict[str, int]]:
    """Every kind of input, `cases` of each; outcome -> count, by kind."""
    found = {kind: dict(fuzz(kind, cases, seed)) for kind in KINDS}
    return {**found, "prepared": dict(fuzz_prepared(cases, seed))}


FLAGS = {"cases": Flag(500, "Cases of each kind."), "seed": Flag(0, "Seed of the damage.")}


def main(cases: int, seed: int) -> int:
    """Print the table as JSON; returns 1 if anything went wrong."""
    table = run(cases, seed)
    print(json.dumps(table, indent=1))
    return int(any(counts["wrong"] or counts["traceback"] for counts in table.values()))


if __name__ == "__main__":
    run_program(main, FLAGS, description=__doc__)
