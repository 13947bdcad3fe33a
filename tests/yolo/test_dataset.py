from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from ultralytics.utils import DEFAULT_CFG

from discreet.data import ImageRecord
from discreet.yolo.dataset import ImageSettings, RecordDataset
from discreet.yolo.loading import MicroBatches

DATA = {"names": {0: "a"}, "nc": 1, "channels": 3}


@pytest.fixture
def uneven(tmp_path: Path) -> tuple[ImageRecord, ...]:
    """Images of many shapes; the red channel of image i is 10 i, and so is its box width."""
    records = []
    for i, (height, width) in enumerate([(32, 64), (64, 32), (48, 48), (20, 64), (64, 60)]):
        image = np.zeros((height, width, 3), np.uint8)
        image[..., 2] = 10 * i
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), image)
        records.append(
            ImageRecord(
                image=path,
                label=None,
                width=width,
                height=height,
                classes=np.zeros(1, np.int64),
                boxes=np.array([[0.5, 0.5, 0.1 * (i + 1), 0.5]], np.float32),
                digest=bytes([i]),
            )
        )
    return tuple(records)


def make(records: Sequence[ImageRecord], **settings: object) -> RecordDataset:
    options = {"augment": False, "hyp": DEFAULT_CFG, "imgsz": 64} | settings
    return RecordDataset(records, ImageSettings(data=DATA, **options))


@pytest.mark.parametrize("rect", [True, False])
def test_image_and_labels_belong_together(uneven: tuple[ImageRecord, ...], rect: bool):
    dataset = make(uneven, rect=rect, batch_size=2)
    for i in range(5):
        sample = dataset[i]
        file = int(Path(sample["im_file"]).stem)
        height, width = sample["img"].shape[1:]
        assert int(sample["img"][0, height // 2, width // 2]) == 10 * file
        assert sample["ori_shape"] == (uneven[file].height, uneven[file].width)
        pixels = float(sample["bboxes"][0, 2]) * width
        resized = uneven[file].width * 64 / max(uneven[file].height, uneven[file].width)
        assert pixels == pytest.approx(0.1 * (file + 1) * resized, abs=1)


def test_a_kept_image_is_not_changed_by_augmentation(uneven: tuple[ImageRecord, ...]):
    hyp = SimpleNamespace(**vars(DEFAULT_CFG))
    dataset = make(uneven, augment=True, hyp=hyp)
    first = dataset[(0, 4)]["img"]
    for step in range(1, 5):
        dataset[(step, 4)]
    assert np.array_equal(dataset[(0, 4)]["img"], first)


def collect(draws: Sequence[Sequence[int]], size: int, workers: int, dataset: RecordDataset):
    batches = MicroBatches(
        dataset, iter(draws), first_step=1, micro_batch_size=size, workers=workers
    )
    steps = []
    for _ in draws:
        files = [[int(Path(f).stem) for f in part["im_file"]] for part in batches.next_step()]
        steps.append(files)
    return steps


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "draws",
    [
        [[0, 1, 2, 3, 4], [2], [0, 4]],
        [[], [1], [], [], [0, 1, 2], []],
        [[], []],
    ],
)
def test_every_step_gets_its_own_draw(
    uneven: tuple[ImageRecord, ...], draws: list[list[int]], workers: int
):
    dataset = make(uneven, augment=True, hyp=SimpleNamespace(**vars(DEFAULT_CFG)))
    steps = collect(draws, 2, workers, dataset)
    assert [[i for part in step for i in part] for step in steps] == draws
    assert all(1 <= len(part) <= 2 for step in steps for part in step)


def test_draws_are_made_only_as_far_as_needed(uneven: tuple[ImageRecord, ...]):
    made = 0

    def draws() -> Iterator[list[int]]:
        nonlocal made
        for _ in range(10):
            made += 1
            yield [0]

    dataset = make(uneven, augment=True, hyp=SimpleNamespace(**vars(DEFAULT_CFG)))
    batches = MicroBatches(dataset, draws(), first_step=1, micro_batch_size=2)
    list(batches.next_step())
    assert made <= 2


def test_a_vanished_image_is_named(uneven: tuple[ImageRecord, ...]):
    dataset = make(uneven)
    uneven[0].image.unlink()
    with pytest.raises(OSError, match=r"0\.png"):
        dataset[0]
