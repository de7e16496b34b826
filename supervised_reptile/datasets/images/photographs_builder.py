"""The TensorFlow Datasets builder of photographs, which stores one memory-mapped array."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from supervised_reptile.datasets.few_shot import SizeCheck
from supervised_reptile.datasets.images import miniimagenet
from supervised_reptile.datasets.images.arrays import write_arrays
from supervised_reptile.datasets.images.contents import checked_contents
from supervised_reptile.datasets.images.layouts import Pickles
from supervised_reptile.datasets.images.sources import Source
from supervised_reptile.datasets.images.store import VERSION, ImageStore, open_arrays, verify
from supervised_reptile.datasets.untrusted.downloads import fetch, tfds_settings, writing
from supervised_reptile.datasets.untrusted.guards import files_of
from supervised_reptile.errors import DatasetError


# TFDS has no types.
class Photographs(tfds.core.DatasetBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Photographs by class, of one size, at ``ImageStore.path``.

    TFDS downloads them, and ensures that a failed or killed preparation leaves nothing that looks
    finished.

    Args:
        store: The data set and where to store it.
        source: Source of the pictures; ``None`` to download Mini-ImageNet's pickles.
        url: Address of the folder to download from.
        progress: Whether to show progress bars.
        check: Function that receives the number of images per class, by split, before any is
            decoded. It may raise an error.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        store: ImageStore,
        source: Source | None,
        *,
        url: str,
        progress: bool,
        check: SizeCheck | None = None,
    ) -> None:
        self.name = store.path.parent.name
        self._store, self._source, self._check = store, source, check
        self._url, self._progress = url.rstrip("/"), progress
        super().__init__(data_dir=store.data_dir / store.folder)
        self.name = store.folder  # TFDS stores downloads by name; all sizes share them

    def build(self) -> Path:
        """Prepare the images, replacing any existing ones.

        Returns:
            The folder of the prepared images.

        Raises:
            DatasetError: The data are not available, damaged or incomplete, or the folder cannot
                be written.
        """
        downloads = self._store.data_dir / "downloads"
        config = tfds.download.DownloadConfig(
            download_mode=tfds.GenerateMode.REUSE_CACHE_IF_EXISTS, try_download_gcs=False
        )
        with (
            tfds_settings(downloads, self._progress),
            writing(self.data_dir, self.is_prepared),
        ):
            self.download_and_prepare(download_dir=downloads, download_config=config)
        # Remove the rest of killed preparations. A running one finds the work done.
        for left in Path(self.data_dir).parent.glob(f"incomplete.*_{VERSION}"):
            shutil.rmtree(left, ignore_errors=True)
        return Path(self.data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self._store.image_size, self._store.image_size, 3)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Images of {self._store.folder}, by class.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=shape, dtype=np.uint8),
                    "class": tfds.features.Text(),
                }
            ),
        )

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig | None = None,
    ) -> None:
        source = self._source or self._downloaded(dl_manager)
        with files_of(source.root):
            contents = checked_contents(self._store.name, source)
        if self._check:
            self._check({s: [*map(len, part.values())] for s, part in contents.items()})
        write_arrays(
            source,
            contents,
            self._store,
            Path(self.data_dir),
            progress=self._progress,
        )

    def _downloaded(self, dl_manager: tfds.download.DownloadManager) -> Source:
        print(miniimagenet.TERMS, flush=True)
        paths = {}
        for split, file in miniimagenet.PICKLES.items():
            url = f"{self._url}/{file.name}"
            path = paths[split] = fetch(dl_manager, url)
            if path.stat().st_size != file.size or _md5(path) != file.md5:
                for each in (path, Path(f"{path}.INFO")):  # else it would count as fetched
                    each.unlink(missing_ok=True)
                raise DatasetError(
                    f"{url} is not the expected file (its size or md5 differs): the download is "
                    "damaged or the file is another; nothing of it is used"
                )
        return Pickles(self._store.data_dir, paths)

    def _as_dataset(
        self,
        split: str,
        decoders: Any = None,
        read_config: Any = None,
        shuffle_files: bool = False,
    ) -> tf.data.Dataset:
        arrays = open_arrays(self._store, verify(self._store, always=False))

        def records() -> Iterator[dict[str, Any]]:
            for class_id in arrays.splits[str(split)]:
                for row in range(*arrays.class_offsets[class_id : class_id + 2]):
                    yield {"image": arrays.images[row], "class": arrays.class_names[class_id]}

        signature = {
            name: tf.TensorSpec(feature.shape, tf.as_dtype(feature.np_dtype))
            for name, feature in self.info.features.items()
        }
        return tf.data.Dataset.from_generator(records, output_signature=signature)

    def _log_download_bytes(self) -> None:
        """Suppress TFDS's message about a download of unknown size."""

    def _log_download_done(self) -> None:
        """Suppress TFDS's message at the end of a download."""


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
