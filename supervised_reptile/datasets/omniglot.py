"""Omniglot (Lake, Salakhutdinov & Tenenbaum 2015) as a TensorFlow Datasets builder.

1623 handwritten characters of 50 alphabets, with 20 drawings each and one bit per pixel. TFDS
downloads, verifies, reports progress and caches. This module defines where the data come from,
checks that they are complete, and reduces them to 28x28 as the original program does.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import tensorflow_datasets as tfds
from PIL import Image

from supervised_reptile.datasets.characters import (
    build_character_dataset,
    identity_of_characters,
)
from supervised_reptile.datasets.few_shot import FewShotDataset
from supervised_reptile.datasets.images.decoding import check_png
from supervised_reptile.datasets.omniglot_contents import (
    ARCHIVES,
    DRAWINGS,
    FINGERPRINT,
    Archive,
    Files,
    find_problems,
    tree_files,
    zip_files,
)
from supervised_reptile.datasets.untrusted.downloads import fetch, tfds_settings, writing
from supervised_reptile.datasets.untrusted.guards import files_of, why
from supervised_reptile.errors import DatasetError, DatasetNotFoundError, warn
from supervised_reptile.programs import command

OFFICIAL_URL = "https://github.com/brendenlake/omniglot/raw/master/python"
RAW_SIZE = (105, 105)
SIZE = (28, 28)
_REMEDY = f"delete the folder and run {command('fetch')} again"


# TFDS has no types.
class Omniglot(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Omniglot at 28x28, one record a character.

    It is not registered with TFDS, whose own "omniglot" stores single drawings at 105x105. The
    prepared data are in ``<data_dir>/omniglot/<version>``.

    Args:
        data_dir: Folder of all data sets.
        source: Folder with the two zip files or with the alphabets' folders; ``None`` to download.
        url: Address of the folder to download from.
        archives: Expected archives. The checksums apply only to downloads: local zip files may
            have been repacked, so their contents are checked instead.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "28x28 by nearest neighbour, one record a character."}  # noqa: RUF012

    def __init__(
        self,
        *,
        data_dir: str | Path,
        source: Path | None = None,
        url: str = OFFICIAL_URL,
        archives: Sequence[Archive] = ARCHIVES,
    ) -> None:
        self.source = source
        self._url = url.rstrip("/")
        self.archives = tuple(archives)
        super().__init__(data_dir=data_dir)

    @property
    def url_infos(self) -> dict[str, Any]:
        """Size and sha256 of every address, which TFDS enforces for downloads."""
        return {
            self._archive_url(archive): tfds.core.download.checksums.UrlInfo(
                size=tfds.core.utils.Size(archive.size),
                checksum=archive.sha256,
                filename=f"{archive.name}.zip",
            )
            for archive in self.archives
        }

    def _archive_url(self, archive: Archive) -> str:
        return f"{self._url}/{archive.name}.zip"

    def _info(self) -> tfds.core.DatasetInfo:
        images = tfds.features.Tensor(
            shape=(DRAWINGS, *SIZE, 1), dtype=np.uint8, encoding=tfds.features.Encoding.ZLIB
        )
        return self.dataset_info_from_configs(
            description="1623 handwritten characters, 20 drawings each: 0 is ink, 1 is paper.",
            homepage="https://github.com/brendenlake/omniglot",
            license="MIT",
            features=tfds.features.FeaturesDict(
                {
                    "images": images,
                    "alphabet": tfds.features.Text(),
                    "character": tfds.features.Text(),
                }
            ),
            disable_shuffling=True,  # records stay in sorted order
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        files: Files = {}
        if self.source is not None and not list(self.source.glob("images_*.zip")):
            files = tree_files(self.source)
            if not files:
                raise DatasetError(
                    f"{self.source} holds neither {self.archives[0].name}.zip nor folders "
                    "<alphabet>/<character> of PNG files"
                )
        else:
            for archive in self.archives:
                path = self._fetch(dl_manager, archive)
                unzipped = path.with_suffix("")
                if self.source is not None and not path.exists() and unzipped.is_dir():
                    files |= tree_files(unzipped)
                else:
                    files |= zip_files(path, archive.name)
        self._check_complete(files)
        return {"all_characters": self._generate_examples(files)}

    def _generate_examples(self, files: Files) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, (alphabet, character) in enumerate(sorted(files)):
            drawings = files[alphabet, character]
            images = [
                shrink(drawings[name], f"{alphabet}/{character}/{name}")
                for name in sorted(drawings)
            ]
            yield (
                index,
                {"images": np.stack(images), "alphabet": alphabet, "character": character},
            )

    def _fetch(self, dl_manager: tfds.download.DownloadManager, archive: Archive) -> Path:
        if self.source is not None:
            return self.source / f"{archive.name}.zip"
        # One at a time, so a verified archive is kept if the next one fails.
        return fetch(dl_manager, self._archive_url(archive))

    def _check_complete(self, files: Files) -> None:
        problems = list(find_problems(files, self.archives))
        if problems:
            more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
            source = self._url if self.source is None else self.source
            remedy = ""
            if source == Path(self.data_dir_root) / "omniglot":
                remedy = f": complete or delete {source} and run {command('fetch')}"
            raise DatasetError(
                f"Omniglot is incomplete: {'; '.join(problems[:3])}{more} "
                f"(source: {source}){remedy}"
            )


def shrink(png: bytes | Path, name: str) -> np.ndarray:
    """Decode a drawing and reduce it to 28x28 as the original program does.

    Its ``Image.resize`` uses the nearest pixel, because the images have one bit per pixel.

    Args:
        png: A PNG file, as bytes or by path: 105x105, one bit per pixel.
        name: Name of the drawing in errors.

    Returns:
        uint8 [28, 28, 1]: 0 is ink, 1 is paper.

    Raises:
        DatasetError: The file is damaged, or is not a 105x105 image with one bit per pixel.
    """
    expected = "must be 105x105, one bit per pixel. Received:"
    try:
        content = png if isinstance(png, bytes) else png.read_bytes()
        check_png(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=("PNG",))
        mode, size = image.mode, image.size
        right = (mode, size) == ("1", RAW_SIZE)  # check before decoding: it may be huge
        small = image.resize(SIZE, Image.Resampling.NEAREST) if right else None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(
            f"Omniglot is damaged: {name} {expected} far more pixels ({why(error)})"
        ) from error
    except Exception as error:  # damaged bytes may raise any error
        reason = "it is no PNG" if isinstance(error, PIL.UnidentifiedImageError) else why(error)
        raise DatasetError(f"Omniglot is damaged: {name} does not decode: {reason}") from error
    if small is None:
        raise DatasetError(
            f"Omniglot is damaged: {name} {expected} {size[0]}x{size[1]}, mode {mode}"
        )
    return np.asarray(small, dtype=np.uint8)[..., np.newaxis]


def _open_builder(data_dir: Path, **options: Any) -> Omniglot:
    """Return the builder, which reads TFDS's metadata of prepared data."""
    try:
        return Omniglot(data_dir=data_dir, **options)
    except Exception as error:  # damaged bytes may raise any error
        if isinstance(error, OSError) and error.strerror:
            raise  # an error of the disk
        folder = data_dir / "omniglot" / str(Omniglot.VERSION)
        raise DatasetError(f"{folder} is damaged: {_REMEDY} ({why(error)})") from error


def _is_prepared(builder: Omniglot) -> bool:
    # TFDS alone would warn about the missing folder.
    return builder.data_path.exists() and builder.is_prepared()


def prepare(
    data_dir: str | Path,
    *,
    source: str | Path | None = None,
    url: str = OFFICIAL_URL,
    archives: Sequence[Archive] = ARCHIVES,
    progress: bool = True,
) -> Path:
    """Fetch, verify and store Omniglot for ``load``, unless this is already done.

    Args:
        data_dir: Folder of all data sets. An extracted ``<data_dir>/omniglot/<alphabet>/
            <character>/*.png``, as the original program creates it, is used if present.
        source: Folder with ``images_background.zip`` and ``images_evaluation.zip``, or with the
            alphabets' folders; ``None`` to download.
        url: Address of a folder with the official archives, http or https.
        archives: Expected archives.
        progress: Whether to show progress bars.

    Returns:
        The folder of the prepared data, ``<data_dir>/omniglot/<version>``.

    Raises:
        ValueError: ``url`` is not http or https.
        DatasetError: The data are not available, damaged or incomplete. In this case nothing is
            prepared; verified downloads are kept for the next attempt.
    """
    data_dir = Path(data_dir)
    if not re.match("https?://", url):
        raise ValueError(f"url must begin with http:// or https://. Received: {url!r}")
    if source is not None and not Path(source).is_dir():
        raise DatasetError(f"{source} is not a folder")
    tree = data_dir / "omniglot"
    with files_of(data_dir):
        if source is None and url == OFFICIAL_URL and tree_files(tree):
            source = tree
        source = Path(source) if source is not None else None
        builder = _open_builder(data_dir, source=source, url=url, archives=archives)
        if not _is_prepared(builder):
            _download_and_prepare(builder, data_dir / "downloads", progress)
    read(builder)  # also on a second run: a damaged file on disk must not count as ready
    return Path(builder.data_path)


def _download_and_prepare(builder: Omniglot, downloads: Path, progress: bool) -> None:
    config = tfds.download.DownloadConfig(
        try_download_gcs=False, force_checksums_validation=builder.source is None
    )
    with (
        tfds_settings(downloads, progress),
        writing(builder.data_dir, lambda: _is_prepared(builder)),
    ):
        builder.download_and_prepare(
            download_dir=downloads, download_config=config, file_format="array_record"
        )


def load(*, data_dir: Path, seed: int, progress: bool = True) -> FewShotDataset:
    """Load Omniglot: 4800 training classes (1200 characters, 4 rotations), 423 test classes.

    Args:
        data_dir: Folder of all data sets, with prepared data or an extracted tree.
        seed: Seed of the split.
        progress: Whether to show progress bars if an extracted tree has to be prepared.

    Returns:
        The data set; images uint8 [104460, 28, 28, 1], 0 (ink) and 1 (paper).

    Raises:
        DatasetNotFoundError: Omniglot is not in ``data_dir``.
        DatasetError: The data are damaged or incomplete.
    """
    with files_of(data_dir):
        builder = _open_builder(data_dir)
        found = _is_prepared(builder)
    if not found:
        if not tree_files(data_dir / "omniglot"):
            raise DatasetNotFoundError(
                f"Omniglot is not in {data_dir}/omniglot: run {command('fetch')} --data_dir "
                f"{data_dir}, or use --dataset glyphs, which needs no download"
            )
        prepare(data_dir, progress=progress)
        builder = _open_builder(data_dir)
    drawings, names = read(builder)
    official = identity_of_characters("omniglot", drawings, names).fingerprint == FINGERPRINT
    if not official:
        warn(
            f"the drawings in {builder.data_dir} are not exactly those of the official archives; "
            "results are recorded as those of other data"
        )
    origin = "the official drawings" if official else "not the official drawings"
    return build_character_dataset("omniglot", drawings, names, seed=seed, origin=origin)


def read(builder: Omniglot) -> tuple[np.ndarray, list[str]]:
    """Read prepared data.

    Args:
        builder: A builder with prepared data.

    Returns:
        Drawings, uint8 [characters, 20, 28, 28, 1], and names such as
        ``"Tifinagh/character55"``, sorted by alphabet and character.

    Raises:
        DatasetError: The file is damaged or records are missing.
    """
    expected = sum(sum(archive.alphabets.values()) for archive in builder.archives)
    try:
        records = list(builder.as_data_source(split="all_characters"))
        drawings = np.stack([record["images"] for record in records])
        names = [f"{r['alphabet'].decode()}/{r['character'].decode()}" for r in records]
    except Exception as error:  # damaged bytes may raise any error
        raise DatasetError(f"{builder.data_dir} is damaged: {_REMEDY} ({why(error)})") from error
    if len(records) != expected:
        raise DatasetError(
            f"{builder.data_dir} has {len(records)} of {expected} characters: {_REMEDY}"
        )
    shape = (expected, DRAWINGS, *SIZE, 1)
    if drawings.shape != shape or drawings.dtype != np.uint8 or drawings.max() > 1:
        raise DatasetError(f"{builder.data_dir} is damaged: {_REMEDY}")
    return drawings, names
