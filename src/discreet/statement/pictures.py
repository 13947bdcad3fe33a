"""Pictures inside a report: pixels, and nothing about where they come from."""

from __future__ import annotations

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"sRGB", b"gAMA", b"pHYs"})
_JPEG = b"\xff\xd8"
_JPEG_START_OF_SCAN = 0xDA
# APP0 (JFIF) has no words; quantisation, Huffman tables, frames and restart intervals are pixels.
_JPEG_SEGMENTS = frozenset({0xE0, 0xDB, 0xC0, 0xC1, 0xC2, 0xC4, 0xDD, _JPEG_START_OF_SCAN})


def picture_faults(data: bytes) -> list[str]:
    """What a PNG or JPEG holds besides pixels: texts, dates, EXIF, colour profiles."""
    if data.startswith(_PNG):
        kinds = _png_chunks(data)
        if kinds is None or kinds - _PNG_CHUNKS:
            return ["it holds a picture with more than pixels in it"]
        return []
    if data.startswith(_JPEG):
        kinds = _jpeg_segments(data)
        if kinds is None or kinds - _JPEG_SEGMENTS:
            return ["it holds a picture with more than pixels in it"]
        return []
    return ["it holds a picture that is neither PNG nor JPEG"]


def _png_chunks(data: bytes) -> set[bytes] | None:
    kinds: set[bytes] = set()
    at = len(_PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kinds.add(data[at + 4 : at + 8])
        at += 12 + length
    return kinds if at == len(data) else None


def _jpeg_segments(data: bytes) -> set[int] | None:
    kinds: set[int] = set()
    at = len(_JPEG)
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        kinds.add(data[at + 1])
        if data[at + 1] == _JPEG_START_OF_SCAN:
            return kinds if data.endswith(b"\xff\xd9") else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
