"""Every family and every task: what docs/models.md says of them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import parse_model, yaml_model_load

from discreet.cli import main

from .catalogue import PAGE, line, lines_of, page, produce
from .data import write_shapes
from .matrix import COLUMNS, REFUSED, ROWS, Examination, Row

# One of every loss that is not boxes of a convolutional detector, which tests/yolo examine.
SMALL = [row for row in ROWS if row.family == "YOLOv8" and row.task != "detect"]
SMALL += [row for row in ROWS if row.architecture in ("yolo26n-pose.yaml", "yolo26n-seg.yaml")]


def name_of(row: Row) -> str:
    return row.architecture.removesuffix(".yaml")


@pytest.mark.parametrize("row", SMALL, ids=name_of)
def test_losses_and_gradients_are_those_of_single_images(row: Row, tmp_path: Path):
    examination = Examination(row=row, data=tmp_path, folder=tmp_path)
    examination.loss()
    examination.layers()


# A loss, a head or a layout of each kind; `python -m tests.models.catalogue` examines every row.
KINDS = ("yolov8n", "yolo26n", "yolov8n-seg", "yolo11n-pose", "yolov8n-obb", "yolov8n-cls")


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if name_of(row) in KINDS], ids=name_of)
def test_the_table_is_true(row: Row):
    assert produce(row) == line(row, [True] * len(COLUMNS))


def test_the_page_is_what_its_code_makes():
    written = PAGE.read_text(encoding="utf-8")
    assert written == page(lines_of(written)), "python -m tests.models.catalogue"
    assert lines_of(written) == [line(row, [True] * len(COLUMNS)) for row in ROWS]


def layers(architecture: str) -> set[type[nn.Module]]:
    with torch.device("meta"):
        model, _ = parse_model(deepcopy(yaml_model_load(architecture)), 3, verbose=False)
    return {type(layer) for layer in model.modules()}


@pytest.mark.slow
def test_other_sizes_are_made_of_examined_layers():
    examined = set[type[nn.Module]]().union(*(layers(row.architecture) for row in ROWS))
    for row in ROWS:
        for other in row.others:
            assert layers(other) <= examined, other


@pytest.mark.parametrize("architecture", REFUSED)
def test_the_others_are_refused_before_anything_is_spent(
    architecture: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    data = write_shapes(tmp_path / "shapes", "detect")
    project = tmp_path / "runs"
    given = [f"data={data}", f"model={architecture}", "epsilon=8", f"project={project}"]
    assert main(["train", *given]) == 2
    told = capfd.readouterr().err
    assert f"model={architecture}" in told and REFUSED[architecture][1] in told
    assert "such as yolov8n" in told  # what to do
    assert not project.exists()
