"""Sources that may not be read. (Root may read everything, so root becomes another user.)"""

import contextlib
import io
import os
from pathlib import Path

import pytest
from campaign import data_kinds
from campaign.data_fuzz import _small_mini_imagenet
from PIL import Image

import supervised_reptile.datasets.images.photographs_builder  # noqa: F401  (while it can be read)
from supervised_reptile.datasets.images.photographs import load
from supervised_reptile.datasets.images.store import ImageStore
from supervised_reptile.errors import DatasetError

NOBODY = 65534
WRITERS = {
    "zip": ("folder:x", data_kinds._write_zips),
    "tree": ("folder:x", data_kinds.write_folders),
    "tar": ("miniimagenet", data_kinds._write_tar),
    "pickle": ("miniimagenet", data_kinds._write_pickles),
    "list": ("miniimagenet", data_kinds._write_lists),
}


@contextlib.contextmanager
def without_privileges(root):
    """Own the files under ``root`` as a user who is not root."""
    if os.geteuid() != 0:
        yield
        return
    for path in (root, *root.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.parametrize(
    ("kind", "victim"),
    [
        *(("zip", "x"), ("zip", "x/val.zip"), ("tree", "x/val"), ("tree", "x/test/n01930112")),
        *(("tree", "x/train/n01558993/n01558993_1.JPEG"), ("pickle", "miniimagenet")),
        ("tar", "miniimagenet/ILSVRC2012_img_train.tar"),
        *(("tar", "miniimagenet/val.csv"), ("pickle", "miniimagenet/mini-imagenet-cache-test.pkl")),
        *(("list", "miniimagenet/images"), ("list", "miniimagenet/images/n01930112_2.JPEG")),
    ],
)
def test_a_source_without_permission(kind, victim, tmp_path, monkeypatch):
    name, write = WRITERS[kind]
    Image.init()
    for encoding in ("cp437", "utf-8-sig"):
        "".encode(encoding)  # loads the codec
    source = tmp_path / name.removeprefix("folder:")
    source.mkdir()
    write(source, 0)
    monkeypatch.chdir(tmp_path)  # whose parents another user may not enter
    with _small_mini_imagenet(), without_privileges(tmp_path):
        Path(victim).chmod(0)
        try:
            with contextlib.redirect_stderr(io.StringIO()), pytest.raises(DatasetError) as caught:
                load(ImageStore(name, Path(), 8, "nearest"), progress=False)
        finally:
            Path(victim).chmod(0o700)
    text = str(caught.value)
    assert "could not be read: Permission denied" in text or "cannot be read: Permission" in text
    assert Path(victim).name in text and "\n" not in text
    assert not [*tmp_path.rglob("images.npy")]
