"""Decode image files: the supported formats and their conversion to pixels."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from supervised_reptile.datasets.untrusted.guards import LARGEST_PICTURE, why

# A picture by path, as encoded bytes, or decoded, uint8 [height, width, 3].
Picture = Path | bytes | np.ndarray

_ENDINGS = {
    "AVIF": ".avif",
    "BMP": ".bmp .dib",
    "GIF": ".gif",
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo",
    "JPEG2000": ".jp2 .j2k .jpf .jpx .j2c .jpc",
    "PNG": ".png .apng",
    "PPM": ".ppm .pgm .pbm .pnm",
    "TGA": ".tga",
    "TIFF": ".tif .tiff",
    "WEBP": ".webp",
}
Image.init()
FORMATS = tuple(kind for kind in _ENDINGS if kind in Image.OPEN)
"""Supported image formats; Pillow before 11.3 has no AVIF."""
SUFFIXES = frozenset(suffix for kind in FORMATS for suffix in _ENDINGS[kind].split())
"""Suffixes of their files."""

_OTHER_ENDINGS = {".heic", ".heif", ".svg", ".jxl", ".raw", ".cr2", ".nef", ".arw", ".dng", ".xcf"}
# First bytes of other formats, at an offset.
_OTHER_SIGNS = {
    "BLP": (0, b"BLP"),
    "DDS": (0, b"DDS "),
    "HEIC": (4, b"ftyphei"),
    "ICNS": (0, b"icns"),
    "JPEG XL": (0, b"\0\0\0\x0cJXL "),
    "PDF": (0, b"%PDF"),
    "PSD": (0, b"8BPS"),
    "SVG": (0, b"<svg"),
}
# Formats that Pillow knows but that are not image files.
_NO_PICTURES = ("BUFR", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "PALM", "PDF")
_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_PNG_SIGN = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112  # tag of EXIF
# Transposition that makes the picture upright, for each of its values.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@functools.cache
def other_format(suffix: str) -> str | None:
    """Return the name of an unsupported image format from a file suffix, or ``None``."""
    if suffix in SUFFIXES:
        return None
    if suffix in _OTHER_ENDINGS:
        return suffix[1:].upper()
    known = Image.registered_extensions().get(suffix)
    return "AVIF" if suffix == ".avif" else None if known in _NO_PICTURES else known


def decode(picture: Picture, size: int, resize: str, *, upright: bool = True) -> np.ndarray:
    """Decode a picture, resize it and convert it to RGB, without cropping.

    This is the order of the authors' program. Pictures with a palette, one bit per pixel or
    transparency are first converted to RGB on white, because a filter would mix their values. With
    ``"nearest"`` the order makes no difference.

    Args:
        picture: An image file by path or as bytes, or decoded pixels uint8 [height, width, 3].
            For 16-bit images, the upper 8 bits are used.
        size: Height and width of the result, in pixels.
        resize: Filter of Pillow, e.g. ``"nearest"``.
        upright: Whether to rotate a photograph according to its EXIF orientation, which the
            authors' program ignores.

    Returns:
        uint8 [size, size, 3].

    Raises:
        ValueError: The picture is empty, damaged or not an image.
    """
    if isinstance(picture, np.ndarray):
        if picture.shape[:2] == (size, size):
            return picture
        return np.asarray(_resized(Image.fromarray(picture), size, resize))
    content = _read(picture) if isinstance(picture, Path) else picture
    if not content:
        raise ValueError("is empty")
    try:
        check_png(content)
        with Image.open(io.BytesIO(content), formats=FORMATS) as file:
            file.load()
            image: Image.Image = file
            if image.mode in _16_BIT:
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if image.mode not in ("I", "F"):
                image = _opaque(_upright(image) if upright else image)
                return np.asarray(_resized(image, size, resize).convert("RGB"))
    except PIL.UnidentifiedImageError:
        raise ValueError(_unidentified(content)) from None
    except Exception as error:  # damaged bytes may raise any error
        raise ValueError(f"is damaged: {why(error)}") from error
    raise ValueError(f"has {image.mode!r} pixels of 32 bits; 8 or 16 are read")


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():  # e.g. a pipe, which would block forever
            there = path.is_symlink() or path.exists()
            raise ValueError("is a broken link or no file" if there else "is missing")
        if path.stat().st_size > LARGEST_PICTURE:
            raise ValueError(f"has more than {LARGEST_PICTURE:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error


def check_png(content: bytes) -> None:
    """Verify the checksums of a PNG file, which Pillow ignores when decoding.

    Raises:
        Exception: The file is damaged. Files of other formats pass.
    """
    if content.startswith(_PNG_SIGN):
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            image.verify()


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata of an intact picture
        return image
    return image if turn is None else image.transpose(turn)


def _opaque(image: Image.Image) -> Image.Image:
    """Convert to RGB on white if there is a palette, one bit per pixel or transparency."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB") if image.mode in ("1", "P") else image


def _resized(image: Image.Image, size: int, resize: str) -> Image.Image:
    return image.resize((size, size), Image.Resampling[resize.upper()])


def _unidentified(content: bytes) -> str:
    for kind, (start, sign) in _OTHER_SIGNS.items():
        if content.startswith(sign, start):
            return f"is a {kind} image; {', '.join(FORMATS)} are read"
    return "is no image that Pillow reads"
