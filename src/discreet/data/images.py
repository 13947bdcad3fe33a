"""Read one image: its size, a digest of its pixels; that all of them decode. Writes nothing.

Stricter than Ultralytics, which drops an image that does not verify and rewrites a JPEG whose end
is missing: here both are refused, because the number of units is part of the guarantee.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageFile

from discreet.data._reading import UnreadableError, read_bytes
from discreet.data.looks import look_of

DIGEST_SIZE = 16

# Suffixes that Ultralytics 8.4 takes for images (data/utils.py, IMG_FORMATS) …
ULTRALYTICS_SUFFIXES = frozenset(
    (
        "avif",
        "bmp",
        "dng",
        "heic",
        "heif",
        "jp2",
        "jpeg",
        "jpg",
        "mpo",
        "png",
        "tif",
        "tiff",
        "webp",
    )
)
# … and those among them that need a decoder that may not be there: refused by name.
UNDECODABLE_SUFFIXES = frozenset({"dng", "heic", "heif"})

# Content decides, as for OpenCV: Pillow's names of the formats behind those suffixes.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "JPEG2000", "AVIF")

MIN_SIDE = 10  # pixels, Ultralytics 8.4, check_image
MAX_PIXELS = 2 * 89_478_485  # Pillow's default limit against decompression bombs

_ORIENTATION = 0x0112  # EXIF tag
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
_JPEG_END = b"\xff\xd9"


class UnusableImageError(Exception):
    """An image that cannot be one unit of the data set; the text says why."""


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What one image file holds.

    Attributes:
        width: Pixels after EXIF rotation.
        height: Pixels after EXIF rotation.
        digest: BLAKE2b of the pixels as stored, 16 bytes: a copy with other metadata, or in another
            lossless format, is the same image.
        frames: Number of frames or pages; only the first is used, as OpenCV does.
        look: What it looks like, roughly; see `discreet.data.subjects.look_of`.
    """

    width: int
    height: int
    digest: bytes
    frames: int
    look: bytes = b""


def suffix_of(path: str | Path) -> str:
    """The text after the last dot, lower case: what Ultralytics goes by."""
    return os.fspath(path).rpartition(".")[-1].lower()


def _open(content: bytes) -> ImageFile.ImageFile:
    # Not Image.open: Ultralytics replaces it by one that may install a package when a file is not
    # recognised, and that must never happen for private data.
    Image.init()
    for name in FORMATS:
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        if accept is None or accept(content[:16]) is not True:
            continue
        try:
            return factory(BytesIO(content), "")
        except Exception as error:  # decoders raise nearly anything on damaged bytes
            raise UnusableImageError(f"damaged {name} header: {error}") from error
    raise UnusableImageError(f"not an image in a format that can be read ({', '.join(FORMATS)})")


def _sideways(image: Image.Image) -> bool:
    # Only EXIF: Pillow's getexif() also believes XMP, which OpenCV does not. A TIFF has no such
    # entry here and Pillow has turned it already.
    raw = image.info.get("exif")
    if not raw:
        return False
    exif = Image.Exif()
    try:
        exif.load(raw)
        return exif.get(_ORIENTATION) in _SIDEWAYS
    except Exception:  # damaged metadata: OpenCV ignores it too
        return False


def inspect_image(path: Path) -> ImageFacts:
    """Decode one image in full, from memory.

    Args:
        path: The image file.

    Raises:
        UnusableImageError: It is unreadable, damaged, truncated, too small or too large.
    """
    suffix = suffix_of(path)
    if suffix in UNDECODABLE_SUFFIXES:
        raise UnusableImageError(f"{suffix.upper()} images are not supported: convert it to PNG")
    try:
        content = read_bytes(path)
    except UnreadableError as error:
        raise UnusableImageError(str(error)) from error
    if not content:
        raise UnusableImageError("empty file (0 bytes)")
    image = _open(content)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnusableImageError(
            f"{width}x{height} is more than {MAX_PIXELS} pixels (a decompression bomb?)"
        )
    # Ultralytics turns an AVIF by its EXIF orientation only under this suffix.
    if image.format == "AVIF" and suffix != "avif":
        raise UnusableImageError("AVIF content under another suffix: rename it to .avif")
    if image.format == "TIFF" and image.mode in ("F", "I"):
        raise UnusableImageError("TIFF samples of 32 bits or signed ones cannot be decoded")
    if image.format == "JPEG" and not content.endswith(_JPEG_END):
        raise UnusableImageError(
            "does not end with the JPEG end-of-image marker: it is truncated, or has other bytes"
            " after its end; Ultralytics would rewrite it in place"
        )
    try:
        if image.format == "PNG":
            _open(content).verify()  # checksums of all chunks up to the last
        frames = int(getattr(image, "n_frames", 1))
        image.load()
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise UnusableImageError(f"damaged or truncated {image.format}: {error}") from error
    width, height = image.size  # Pillow has turned a TIFF by now
    if _sideways(image):
        width, height = height, width
    if min(width, height) < MIN_SIDE:
        raise UnusableImageError(f"{width}x{height} is smaller than {MIN_SIDE} pixels a side")
    return ImageFacts(
        width=width,
        height=height,
        digest=_digest(image),
        frames=frames,
        look=look_of(image),
    )


def _digest(image: Image.Image) -> bytes:
    # As training sees them: a grey image and its copy in colour are one, and nothing is seen
    # through. Samples of more than 8 bits are taken as they are: converting would cut them off.
    pixels = image if image.mode.startswith(("I", "F")) else image.convert("RGB")
    shape = f"{pixels.mode} {pixels.width}x{pixels.height} "
    content = hashlib.blake2b(shape.encode(), digest_size=DIGEST_SIZE)
    content.update(pixels.tobytes())
    return content.digest()
