"""Figures for the report: boxes stand where they belong, and pictures are nothing but pixels."""

from __future__ import annotations

import io
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from ultralytics.utils import DEFAULT_CFG

from discreet.data import load_dataset
from discreet.statement.pictures import picture_faults
from discreet.yolo.dataset import ImageSettings, RecordDataset, describe
from discreet.yolo.evaluate import evaluate
from discreet.yolo.figures import validation_figures

from .conftest import IMGSZ, NAMES, make_model


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data.yaml` of four images of 64 x 40, with text in their files, and one box each."""
    folder = tmp_path_factory.mktemp("wide")
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for i in range(4):
            noise = np.random.default_rng(i).integers(0, 255, (40, 64, 3), dtype=np.uint8)
            exif = Image.Exif()
            exif[0x010E] = "a patient"
            Image.fromarray(noise).save(folder / "images" / split / f"{i}.jpg", exif=exif)
            (folder / "labels" / split / f"{i}.txt").write_text(f"{i % 3} 0.3 0.6 0.2 0.4\n")
    yaml = folder / "data.yaml"
    names = "\n".join(f"  {i}: {name}" for i, name in enumerate(NAMES))
    yaml.write_text(f"train: images/train\nval: images/val\nnames:\n{names}\n")
    return yaml


def dataset_of(data: Path) -> tuple[RecordDataset, dict[str, Any], Any]:
    found = load_dataset(data, splits=("val",))
    described = describe(found)
    args = copy(DEFAULT_CFG)
    args.imgsz = IMGSZ
    dataset = RecordDataset(
        found.val, ImageSettings(data=described, imgsz=IMGSZ, hyp=args, augment=False, rect=True)
    )
    return dataset, described, args


class Knowing:
    """A validator of a perfect detector: it finds what is labelled, in letterboxed pixels."""

    def __init__(self, dataset: RecordDataset, confidence: float) -> None:
        self.seen = [dataset[i] for i in range(len(dataset))]
        self.confidence = confidence
        box = SimpleNamespace(all_ap=[])
        self.metrics = SimpleNamespace(names=dict(enumerate(NAMES)), box=box)

    def postprocess(self, output: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        image = next(s for s in self.seen if torch.equal(s["img"].float() / 255, output[0]))
        height, width = image["img"].shape[1:]
        assert height > 40  # there are margins to take off
        centre, size = image["bboxes"][:, :2], image["bboxes"][:, 2:]
        corners = torch.cat([centre - size / 2, centre + size / 2], 1)
        boxes = corners * torch.tensor([width, height, width, height])
        return [
            {
                "bboxes": boxes,
                "conf": torch.full((len(boxes),), self.confidence),
                "cls": image["cls"].reshape(-1),
            }
        ]


class Identity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def test_what_is_found_stands_where_it_is_labelled(wide: Path):
    dataset, _, _ = dataset_of(wide)
    knowing: Any = Knowing(dataset, 0.8)
    figures = validation_figures(knowing, Identity(), dataset)
    assert figures.images == len(figures.samples) == 4
    assert figures.classes == ()
    assert {box.name for sample in figures.samples for box in sample.labels} == set(NAMES)
    for sample in figures.samples:
        (label,), (found,) = sample.labels, sample.detections
        assert (sample.width, sample.height) == (64, 40)
        assert label.confidence is None
        assert found.confidence == pytest.approx(0.8)
        assert label.name == found.name
        for side in ("left", "top", "width", "height"):
            assert getattr(found, side) == pytest.approx(getattr(label, side), abs=0.02)
        assert label.left == pytest.approx(0.2)
        assert label.top == pytest.approx(0.4)


def test_what_is_hardly_found_is_not_shown(wide: Path):
    dataset, _, _ = dataset_of(wide)
    knowing: Any = Knowing(dataset, 0.1)
    assert all(
        sample.detections == ()
        for sample in validation_figures(knowing, Identity(), dataset).samples
    )


def test_pictures_are_pixels_and_nothing_else(wide: Path):
    dataset, _, _ = dataset_of(wide)
    knowing: Any = Knowing(dataset, 0.8)
    for sample in validation_figures(knowing, Identity(), dataset).samples:
        assert picture_faults(sample.jpeg) == []
        assert b"patient" not in sample.jpeg
        with Image.open(io.BytesIO(sample.jpeg)) as image:
            assert image.size == (sample.width, sample.height)


def test_curves_are_those_of_the_validator(scenes: Path, tmp_path: Path):
    dataset, described, args = dataset_of(scenes)
    model = make_model().eval()
    validator, metrics = evaluate(model, dataset, args=args, data=described, folder=tmp_path)
    figures = validation_figures(validator, model, dataset)
    assert len(figures.samples) == 6
    assert {curve.name for curve in figures.classes} <= set(NAMES)
    assert sum(curve.objects for curve in figures.classes) == sum(
        len(label["cls"]) for label in dataset.labels
    )
    mean = np.mean([curve.ap50 for curve in figures.classes])
    assert mean == pytest.approx(metrics["map50"], abs=1e-6)
    for curve in figures.classes:
        assert len(curve.precision) == 41
        assert all(0 <= value <= 1 for value in curve.precision)
