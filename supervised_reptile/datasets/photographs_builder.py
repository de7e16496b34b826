"""The TensorFlow Datasets builder of photographs; its file format is one memory-mapped array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from supervised_reptile.datasets.image_arrays import open_arrays, write_arrays
from supervised_reptile.datasets.sources import Contents, Source
from supervised_reptile.datasets.tfds_settings import tfds_settings
from supervised_reptile.errors import DatasetError


class Photographs(tfds.core.DatasetBuilder, skip_registration=True):
    """Photographs by class, of one size, in ``<data_dir>/<folder>/<size>-<filter>/<version>``.

    TFDS sees to it that a preparation that fails or is killed leaves nothing that looks finished.

    Args:
        folder: Name of the data set's folder.
        source: Where the pictures come from.
        contents: What must be in the source.
        data_dir: Folder of all data sets.
        image_size: Height and width to store, in pixels.
        resize: Filter of Pillow.
        progress: Whether to show a progress bar.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        folder: str,
        source: Source,
        contents: Contents,
        *,
        data_dir: Path,
        image_size: int,
        resize: str,
        progress: bool,
    ) -> None:
        self.name = f"{image_size}-{resize}"
        self._downloads = data_dir / "downloads"
        self._source, self._contents = source, contents
        self._size, self._resize, self._progress = image_size, resize, progress
        super().__init__(data_dir=data_dir / folder)

    def _log_download_bytes(self) -> None:
        """Not TFDS's message, which tells of a download of unknown size."""

    def _log_download_done(self) -> None:
        """Nor that of its end."""

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self._size, self._size, 3)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Photographs of {self._source.root}, by class.",
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
        write_arrays(
            self._source,
            self._contents,
            Path(self.data_dir),
            size=self._size,
            resize=self._resize,
            progress=self._progress,
        )

    def _as_dataset(
        self,
        split: str,
        decoders: Any = None,
        read_config: tfds.ReadConfig | None = None,
        shuffle_files: bool = False,
    ) -> tf.data.Dataset:
        arrays = open_arrays(self.name, Path(self.data_dir))

        def records():
            for class_id in arrays.splits[str(split)]:
                for row in range(*arrays.class_offsets[class_id : class_id + 2]):
                    yield {"image": arrays.images[row], "class": arrays.class_names[class_id]}

        return tf.data.Dataset.from_generator(
            records, output_signature=self.info.features.get_tensor_spec()
        )

    def build(self) -> Path:
        """Prepare the images anew, in place of those that may be there.

        Returns:
            The folder of the prepared images.

        Raises:
            DatasetError: If a picture is missing or damaged, or the folder cannot be written.
        """
        config = tfds.download.DownloadConfig(
            download_mode=tfds.GenerateMode.REUSE_CACHE_IF_EXISTS, try_download_gcs=False
        )
        try:
            with tfds_settings(self._progress):
                self.download_and_prepare(download_dir=self._downloads, download_config=config)
        except OSError as error:
            # Another process, started at the same time, may have finished the same work.
            if not self.is_prepared():
                raise DatasetError(f"{self.data_dir} could not be written: {error}") from error
        return Path(self.data_dir)
