"""Signs of one subject in several images: found where they are, silent where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from discreet.data import DetectionDataset, ImageRecord, load_dataset, suspected_subjects
from discreet.data.looks import look_of, near_pairs, that_look_like


def dataset_of(names: list[str], looks: list[bytes] | None = None) -> DetectionDataset:
    records = tuple(
        ImageRecord(
            image=Path("/data/images/train") / name, label=None, width=9, height=9,
            classes=np.zeros(0, np.int64), boxes=np.zeros((0, 4), np.float32),
            digest=name.encode(), look=b"" if looks is None else looks[i],
        )
        for i, name in enumerate(names)
    )  # fmt: skip
    return DetectionDataset(yaml=Path("/data/data.yaml"), names=("a",), train=records)


@pytest.mark.parametrize(
    "names",
    [
        [f"p{patient:03}_{i}.png" for patient in range(4) for i in range(3)],
        [f"case {patient}-left.{i}.jpg" for patient in "abcd" for i in range(2)],
        [f"{patient}/{i:03}.png" for patient in ("anna", "bert", "cleo") for i in range(2)],
        [f"cam{camera}-frame{i}.png" for camera in "abc" for i in range(5)],
    ],
)
def test_names_that_begin_alike_are_asked_about(names: list[str]):
    (warning,) = suspected_subjects(dataset_of(names))
    assert "groups=FILE.csv" in warning and "group_regex=" in warning


@pytest.mark.parametrize(
    "names",
    [
        [f"BloodImage_{i:05}.jpg" for i in range(50)],
        [f"{i:012}.jpg" for i in range(50)],
        [f"IMG_{i}.png" for i in range(30)] + [f"DSC_{i}.png" for i in range(30)],
        [f"{i:08x}-bf1-{i * 7:05x}.jpg" for i in range(50)],
        ["a.png"],
    ],
)
def test_plain_numbers_say_nothing(names: list[str]):
    assert suspected_subjects(dataset_of(names)) == []


def test_groups_end_the_question():
    dataset = dataset_of([f"p{patient}_{i}.png" for patient in range(4) for i in range(3)])
    assert suspected_subjects(replace(dataset, grouping="file")) == []


def random_image(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    return Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC)


def test_near_duplicates_are_found_and_strangers_are_not():
    images = [random_image(i) for i in range(30)]
    again = images[7].resize((320, 240)).point(lambda v: v * 0.9)
    looks = [look_of(image) for image in (*images, again)]
    pairs = near_pairs(np.frombuffer(b"".join(looks), np.uint8).reshape(-1, 16))
    assert pairs.tolist() == [[7, 30]]
    (warning,) = suspected_subjects(dataset_of([f"{i}.png" for i in range(31)], looks))
    assert "2 of 31 images look like another, such as 7.png and 30.png" in warning


def test_all_pairs_within_reach_are_found():
    """Against every pair compared, on looks that few or many share."""
    random = np.random.default_rng(3)
    base = random.integers(0, 256, (40, 16), np.uint8)
    looks = np.concatenate([base, base[:20], base[:5]])
    for row in range(40, 65):
        for bit in random.choice(128, size=int(random.integers(0, 9)), replace=False):
            looks[row, bit // 8] ^= np.uint8(1 << (bit % 8))
    bits = np.unpackbits(looks, axis=1).astype(int)
    distance = np.abs(bits[:, None] - bits[None]).sum(2)
    expected = [list(pair) for pair in np.argwhere(np.triu(distance <= 6, 1))]
    assert near_pairs(looks).tolist() == expected


def test_empty_pictures_and_deep_samples_say_nothing():
    flat = look_of(Image.new("RGB", (64, 64), "grey"))
    assert near_pairs(np.frombuffer(flat * 5, np.uint8).reshape(-1, 16)).size == 0
    assert look_of(Image.fromarray(np.zeros((20, 20), np.uint16))) == b""


@pytest.mark.real_data
def test_video_frames_are_asked_about_and_single_smears_are_not(shared_data: Path):
    video = suspected_subjects(load_dataset(shared_data / "fod_a/data.yaml"))
    assert len(video) == 1 and "of 6885 images look like another" in video[0]
    assert suspected_subjects(load_dataset(shared_data / "bccd/data.yaml")) == []


@pytest.mark.real_data
def test_shared_groups_are_units(shared_data: Path):
    from discreet.data import group_by_file

    for name, n in ("fod_a", 119), ("txl_pbc", 959), ("bccd", 292):
        folder = shared_data / name
        dataset = group_by_file(load_dataset(folder / "data.yaml"), folder / "groups.csv")
        assert len(dataset.units()) == n


def test_images_that_look_like_some_others_are_all_found():
    generator = np.random.default_rng(4)
    others = generator.integers(0, 256, (700, 16), dtype=np.uint8)
    others[-1] = 0  # shows nothing
    changed = np.arange(9)  # bits of image i that differ from other i
    bits = np.unpackbits(others[: len(changed)], axis=1)
    for image, number in enumerate(changed):
        bits[image, generator.choice(128, number, replace=False)] ^= 1
    looks = np.concatenate([np.packbits(bits, axis=1), others[-1:], ~others[:1]])
    found = that_look_like(looks, others)
    assert found.tolist() == [True] * 7 + [False] * 4
    assert that_look_like(looks, others[:0]).tolist() == [False] * len(looks)
    assert that_look_like(looks[:0], others).tolist() == []
