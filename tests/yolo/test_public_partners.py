"""Mosaic and mixup with public images: what an image becomes depends on no other private one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from ultralytics.utils import DEFAULT_CFG

from discreet.arguments import split_arguments
from discreet.data import DetectionDataset, ImageRecord, load_dataset, partners_for
from discreet.demo.dataset import write_dataset
from discreet.demo.scenes import PUBLIC
from discreet.errors import ConfigurationError, UnsafeArgumentError
from discreet.statement.verify import verify_release
from discreet.yolo.dataset import ImageSettings, RecordDataset

from .conftest import IMGSZ, Run

DATA = {"names": dict(enumerate("abc")), "nc": 3, "channels": 3}
Records = tuple[ImageRecord, ...]


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes that are not those of the private data set, of the same classes."""
    folder = tmp_path_factory.mktemp("public")
    return write_dataset(folder, style=PUBLIC, train=12, val=2, size=IMGSZ, seed=99)


def images(records: Records, partners: Records, **settings: float) -> RecordDataset:
    still = dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "mosaic"), 0.0)
    return RecordDataset(
        records,
        ImageSettings(
            data=DATA,
            imgsz=IMGSZ,
            hyp=SimpleNamespace(**{**vars(DEFAULT_CFG), **still, **settings}),
            augment=True,
            seed=3,
            partners=partners,
        ),
    )


@pytest.mark.parametrize("key", ["mosaic", "mixup"])
def test_other_private_images_do_not_matter_and_public_ones_do(
    scenes: Path, public: Path, key: str
) -> None:
    records, others = load_dataset(scenes).train, load_dataset(public).train
    few, many = records[:2], (*records[10:15], records[0], *records[15:])
    one, other = images(few, others, **{key: 1.0}), images(many, others, **{key: 1.0})
    views = images(few, (), **{key: 1.0})
    one[(1, 1)], other[(1, 2)]  # whatever came before
    for step in range(4):
        a, b = one[(step, 0)], other[(step, 5)]
        assert torch.equal(a["img"], b["img"]) and torch.equal(a["bboxes"], b["bboxes"])
        assert not torch.equal(a["img"], views[(step, 0)]["img"])


def test_partners_are_many(scenes: Path, public: Path) -> None:
    records, others = load_dataset(scenes).train[:1], load_dataset(public).train
    mixed = images(records, others, mixup=1.0, fliplr=0.0)
    seen = {len(mixed[(step, 0)]["bboxes"]) for step in range(20)}
    assert len(seen) > 1  # scenes differ in their number of objects


def test_public_images_allow_mixing_and_ask_for_it() -> None:
    _, settings = split_arguments({"epsilon": 8, "mosaic": 0.5, "public_data": "coco8/data.yaml"})
    assert settings["mosaic"] == 0.5
    with pytest.raises(UnsafeArgumentError, match="public_data="):
        split_arguments({"epsilon": 8, "mosaic": 0.5, "public_data": None})
    with pytest.raises(ConfigurationError, match="nothing asks for these images"):
        split_arguments({"epsilon": 8, "public_data": "coco8/data.yaml"})


# ---- which images may be partners ----


def renamed(public: DetectionDataset, *names: str) -> DetectionDataset:
    return replace(public, names=names)


def test_classes_are_the_same_where_their_names_are(scenes: Path, public: Path) -> None:
    private, others = load_dataset(scenes), load_dataset(public)
    first, second, *_ = private.names
    swapped = partners_for(private, renamed(others, second, first, *others.names[2:]))
    assert swapped.names == private.names and swapped.notices == ()
    for before, after in zip(others.train, swapped.train, strict=True):
        exchanged = np.array([1, 0, *range(2, others.nc)])[before.classes]
        assert np.array_equal(after.classes, exchanged)
        assert np.array_equal(after.boxes, before.boxes)


def test_objects_of_other_classes_are_left_out_and_told(scenes: Path, public: Path) -> None:
    private, others = load_dataset(scenes), load_dataset(public)
    found = partners_for(
        private, renamed(others, private.names[0], *("zebra", "kite")[: others.nc - 1])
    )
    assert all(set(record.classes.tolist()) <= {0} for record in found.train)
    assert all(len(record.classes) == len(record.boxes) for record in found.train)
    assert "of other classes in public_data are left out" in found.notices[0]


def test_private_images_and_foreign_classes_are_no_partners(scenes: Path, public: Path) -> None:
    private, others = load_dataset(scenes), load_dataset(public)
    both = replace(others, train=(*others.train, private.val[0]))
    with pytest.raises(UnsafeArgumentError, match="1 image of it are private ones"):
        partners_for(private, both)
    with pytest.raises(ConfigurationError, match="no class of the private data set"):
        partners_for(private, renamed(others, *(f"x{i}" for i in range(others.nc))))


def saved_again(records: Records, folder: Path, side: int) -> Path:
    """The images as JPEG files of another size, beside their labels."""
    for record in records:
        for part in ("images/train", "labels/train"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        name = f"copy-{record.image.stem}"
        with Image.open(record.image) as image:
            image.convert("RGB").resize((side, side)).save(folder / f"images/train/{name}.jpg")
        assert record.label is not None
        shutil.copy(record.label, folder / f"labels/train/{name}.txt")
    yaml = folder / "data.yaml"
    yaml.write_text("train: images/train\nval: images/train\nnames: [square, disc, triangle]\n")
    return yaml


def test_private_images_are_no_partners_in_another_format(
    scenes: Path, public: Path, tmp_path: Path
) -> None:
    private = load_dataset(scenes)
    folder = saved_again(private.train[:3], tmp_path, side=2 * IMGSZ)
    copies = load_dataset(folder, splits=("train",))
    copies = replace(copies, names=private.names)
    assert not {r.digest for r in copies.train} & {r.digest for r in private.train}
    with pytest.raises(UnsafeArgumentError, match="3 images of it look like private ones, such as"):
        partners_for(private, copies)
    assert partners_for(private, load_dataset(public)).n  # others of the same kind are none


# ---- runs ----


@pytest.mark.slow
def test_a_run_names_its_partners_and_not_where_they_lie(run: Run, public: Path) -> None:
    result = run(public_data=str(public), mosaic=0.5, mixup=0.5)
    assert result.claim_valid
    partners = result.record.data.partners
    assert partners is not None and partners.images == load_dataset(public).n
    assert str(public.parent) not in (result.release / "privacy.json").read_text()
    assert partners.blake2b in (result.release / "PRIVACY.md").read_text()
    assert verify_release(result.release).valid


@pytest.mark.slow
def test_images_that_runs_were_charged_for_are_not_public(
    run: Run, public: Path, tmp_path: Path
) -> None:
    ledger = str(tmp_path / "ledger.sqlite")
    run(data=str(public), ledger=ledger)
    with pytest.raises(UnsafeArgumentError, match="on record as private"):
        run(public_data=str(public), mosaic=0.5, ledger=ledger)
