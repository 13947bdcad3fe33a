from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from discreet.data.images import UnusableImageError, inspect_image

FORMATS = [("jpg", "JPEG"), ("png", "PNG"), ("bmp", "BMP"), ("tif", "TIFF"), ("webp", "WEBP")]
FORMATS += [("jp2", "JPEG2000")] * features.check("jpg_2000")
FORMATS += [("avif", "AVIF")] * bool(features.check("avif"))


def picture(width: int = 40, height: int = 20, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(form: str, image: Image.Image | None = None, **save: object) -> bytes:
    buffer = io.BytesIO()
    (image or picture()).save(buffer, form, **save)
    return buffer.getvalue()


def refusal(path: Path) -> str:
    with pytest.raises(UnusableImageError) as error:
        inspect_image(path)
    return str(error.value)


@pytest.mark.parametrize(("suffix", "form"), FORMATS)
def test_sound_images(tmp_path, suffix, form):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(encoded(form))
    facts = inspect_image(path)
    assert (facts.width, facts.height, facts.frames, len(facts.digest)) == (40, 20, 1, 16)


@pytest.mark.parametrize(("suffix", "form"), FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.9])
def test_truncated_images(tmp_path, suffix, form, share):
    path = tmp_path / f"a.{suffix}"
    content = encoded(form, picture(200, 100))
    path.write_bytes(content[: int(len(content) * share)])
    what = refusal(path)
    assert ("empty file" in what) == (share == 0)


def test_first_frame_of_several_truncated(tmp_path):
    path = tmp_path / "a.jpg"
    content = encoded("MPO", picture(200, 100), save_all=True, append_images=[picture(200, 100, 1)])
    path.write_bytes(content[: len(content) // 4])
    refusal(path)


@pytest.mark.parametrize("cut", [1, 2, 3, 10])
def test_jpeg_without_its_end_marker(tmp_path, cut):
    # Pillow decodes the first two without complaint, and Ultralytics would rewrite the file.
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded("JPEG")[:-cut])
    assert "end-of-image marker" in refusal(path)


def test_jpeg_with_bytes_after_its_end(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded("JPEG") + b"\0" * 16)
    assert "other bytes after its end" in refusal(path)


def test_png_with_a_wrong_checksum(tmp_path):
    content = bytearray(encoded("PNG"))
    content[-20] ^= 1
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert "damaged or truncated PNG" in refusal(path)


def test_png_without_its_last_chunk(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG")[:-12])
    assert "damaged or truncated PNG" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [b"not an image", b"\0" * 1000, b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM"],
)
def test_wrong_content(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    refusal(path)


def test_unknown_content_lists_what_can_be_read(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded("GIF"))
    assert "not an image in a format that can be read (JPEG, PNG," in refusal(path)


def test_content_decides_not_the_suffix(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded("PNG"))
    assert inspect_image(path).width == 40


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_needs_its_suffix(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded("AVIF"))
    assert "rename it to .avif" in refusal(path)


@pytest.mark.parametrize("suffix", ["heic", "HEIF", "dng"])
def test_formats_without_a_decoder_are_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"x")
    assert f"{suffix.upper()} images are not supported" in refusal(path)


@pytest.mark.parametrize(("size", "sound"), [((10, 10), True), ((9, 40), False), ((40, 9), False)])
def test_smallest_size(tmp_path, size, sound):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG", picture(*size)))
    if sound:
        assert inspect_image(path).height == 10
    else:
        assert f"{size[0]}x{size[1]} is smaller than 10 pixels" in refusal(path)


def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))
    path = tmp_path / "a.png"
    path.write_bytes(content + chunk(b"IEND", b""))
    assert "60000x60000 is more than" in refusal(path)


@pytest.mark.parametrize(
    ("suffix", "form"), [f for f in FORMATS if f[1] not in ("BMP", "JPEG2000")]
)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_size_is_that_of_the_turned_image(tmp_path, suffix, form, orientation):
    from ultralytics.utils.patches import imread

    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(encoded(form, exif=exif))
    facts = inspect_image(path)
    assert (facts.width, facts.height) == ((20, 40) if orientation >= 5 else (40, 20))
    assert imread(str(path)).shape[:2] == (facts.height, facts.width)


def test_damaged_exif_is_ignored(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as loading does
        assert inspect_image(path).width == 40


@pytest.mark.parametrize(
    ("suffix", "form"), [("tif", "TIFF"), ("webp", "WEBP"), ("png", "PNG"), ("mpo", "MPO")]
)
def test_frames_are_counted(tmp_path, suffix, form):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(encoded(form, save_all=True, append_images=[picture(seed=1)]))
    assert inspect_image(path).frames == 2


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_other_pixel_types(tmp_path, mode):
    path = tmp_path / "a.png"
    image = picture().convert("L" if mode == "I;16" else mode)
    path.write_bytes(encoded("PNG", image.convert("I;16") if mode == "I;16" else image))
    assert inspect_image(path).width == 40


def test_float_tiff_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(encoded("TIFF", Image.fromarray(np.zeros((20, 40), np.float32))))
    assert "32 bits" in refusal(path)


def digest_of(path: Path, content: bytes) -> bytes:
    path.write_bytes(content)
    return inspect_image(path).digest


def test_digest_follows_the_pixels(tmp_path):
    jpeg = encoded("JPEG")
    with Image.open(io.BytesIO(jpeg)) as image:
        pixels = image.convert("RGB")
    first = digest_of(tmp_path / "1.jpg", jpeg)
    # A comment behind the start marker: what writing or stripping metadata changes.
    commented = jpeg[:2] + b"\xff\xfe\x00\x08secret" + jpeg[2:]
    assert digest_of(tmp_path / "2.jpg", commented) == first
    assert digest_of(tmp_path / "3.jpg", jpeg + b"\0\xff\xd9") == first
    assert digest_of(tmp_path / "4.png", encoded("PNG", pixels)) == first
    pixels.putpixel((0, 0), (1, 2, 3))
    assert digest_of(tmp_path / "5.png", encoded("PNG", pixels)) != first


def test_digest_tells_shapes_and_deep_samples_apart(tmp_path):
    wide, high = (Image.new("L", size, 7) for size in ((40, 20), (20, 40)))
    digests = {digest_of(tmp_path / "a.png", encoded("PNG", image)) for image in (wide, high)}
    deep = [np.full((20, 40), value, np.uint16) for value in (60_000, 61_000)]
    digests |= {
        digest_of(tmp_path / "a.png", encoded("PNG", Image.fromarray(value))) for value in deep
    }
    assert len(digests) == 4
    in_colour = encoded("PNG", wide.convert("RGB"))
    assert digest_of(tmp_path / "a.png", in_colour) in digests


def test_never_through_the_replaceable_open_of_pillow(tmp_path, monkeypatch):
    # Ultralytics replaces Image.open by one that may install a package.
    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("Image.open was called")

    monkeypatch.setattr(Image, "open", forbidden)
    sound, damaged = tmp_path / "1.png", tmp_path / "2.jpg"
    sound.write_bytes(encoded("PNG"))
    damaged.write_bytes(b"x")
    inspect_image(sound)
    refusal(damaged)


def test_files_that_are_not_plain(tmp_path, unreadable):
    path = tmp_path / "a.jpg"
    assert refusal(path) == "no such file"
    path.symlink_to(tmp_path / "gone.jpg")
    assert refusal(path) == "a link to nothing"
    path.unlink()
    os.mkfifo(path)
    assert refusal(path) == "not a plain file"
    path.unlink()
    path.write_bytes(encoded("JPEG"))
    unreadable(path)
    assert refusal(path) == "cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty file"),
        (b"no image", "not an image"),
        (encoded("JPEG")[:-2], "end-of-image"),
        (encoded("PNG", picture(100, 100))[:2000], "damaged or truncated"),
        (encoded("PNG", picture(8, 20)), "smaller than 10"),
    ],
)
def test_the_data_set_s_problem_names_the_file(tiny, content, what):
    tiny.write("images/train/bad.jpg", content)
    problem = tiny.problem()
    assert problem.startswith("images/train/bad.jpg: ") and what in problem


def test_the_data_set_s_problem_for_a_file_that_may_not_be_read(tiny, unreadable):
    unreadable(tiny.root / "images/train/train1.jpg")
    assert tiny.problem() == "images/train/train1.jpg: cannot be read: Permission denied"


def test_warnings_of_pillow_do_not_stop_loading(tiny):
    tiny.add(
        "images/train/e.jpg", "", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\0\0"
    )
    assert tiny.load().n == 4
