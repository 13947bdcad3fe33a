"""Every family of models and every task, small: from a settled model to one that is released.

Nothing is downloaded: a model is built from its architecture, its BatchNorm statistics are settled
on noise, and it is saved as public weights whose classes are only partly those of the data.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from ultralytics import RTDETR, YOLO
from ultralytics.utils import DEFAULT_CFG_DICT

from discreet.checking import CheckReport
from discreet.data import TaskName
from discreet.gradients import make_engine
from discreet.result import TrainingResult
from discreet.statement.verify import verify_release
from discreet.yolo import checking
from discreet.yolo.batches import images_of, joined
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.model import attach_settings, known_task, open_source, train_mode
from discreet.yolo.parts import select_trainable
from discreet.yolo.stand_ins import StandIns
from discreet.yolo.train import PrivateDetectionTrainer, default_callbacks

from .data import NAMES, SIDE

OLD_NAMES = ("circle", "square", "star")  # square is in the data too
OBJECTS = (3, 0, 12, 1)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A family and a task.

    Attributes:
        family: What people call it.
        architecture: The one that is examined.
        task: What it does.
        others: All names of its sizes, made of the layers that some examined architecture has.
        note: What differs from Ultralytics.
    """

    family: str
    architecture: str
    task: TaskName
    others: tuple[str, ...] = ()
    note: str = ""

    @property
    def transformer(self) -> bool:
        return "rtdetr" in self.architecture


_FADE = "both branches keep their first weights; Ultralytics fades one over epochs"
_FLOW = f"{_FADE}; the flow of the key point likelihood stays as it is"
_QUERIES = "without denoising queries, whose number follows other images"
_ROUNDED = (
    "the check refuses `yolov9e-seg` of random weights, which amplify what float32 rounds past its "
    "limit; gradients of single images agree in double precision"
)
_NOTES = {"YOLOv10": _FADE, "YOLO26": _FADE, "RT-DETR": _QUERIES}
# Of each family the names with their size left open, and the sizes; the first is examined.
_DETECTORS = {
    "YOLOv5u": ("yolov5{}", "nsmlx"),
    "YOLOv8": ("yolov8{}", "nsmlx"),
    "YOLOv9": ("yolov9{}", "tsmc"),
    "YOLOv10": ("yolov10{}", "nsmblx"),
    "YOLO11": ("yolo11{}", "nsmlx"),
    "YOLO12": ("yolo12{}", "nsmlx"),
    "YOLO26": ("yolo26{}", "nsmlx"),
    "RT-DETR": ("rtdetr-{}", "lx"),
}
_OTHER_TASKS = ("YOLOv8", "YOLO11", "YOLO12", "YOLO26")
_SUFFIX: dict[TaskName, str] = {"segment": "seg", "classify": "cls", "pose": "pose", "obb": "obb"}


def _row(family: str, task: TaskName, name: str, sizes: str) -> Row:
    files = tuple(f"{name.format(size)}.yaml" for size in sizes)
    note = "" if task == "classify" else _NOTES.get(family, "")
    if family == "YOLO26" and task == "pose":
        note = _FLOW
    if family == "YOLOv9" and task == "segment":
        note = _ROUNDED
    return Row(family=family, architecture=files[0], task=task, others=files[1:], note=note)


def _rows() -> Iterator[Row]:
    for family, (name, sizes) in _DETECTORS.items():
        yield _row(family, "detect", name, sizes)
        if family == "YOLOv9":  # the largest has layers of its own
            yield _row(family, "detect", name, "e")
    for task, suffix in _SUFFIX.items():
        for family in _OTHER_TASKS:
            name, sizes = _DETECTORS[family]
            yield _row(family, task, f"{name}-{suffix}", sizes)
        if task == "segment":
            yield _row("YOLOv9", task, "yolov9{}-seg", "ce")


ROWS = tuple(_rows())

REFUSED = {
    "yolov8s-world.yaml": ("YOLO-World", "WorldDetect", "its classes are texts"),
    "yoloe-11s.yaml": ("YOLOE", "YOLOEDetect", "its classes are texts"),
    "yoloe-11s-seg.yaml": ("YOLOE", "YOLOESegment", "its classes are texts"),
    "yolo26n-sem.yaml": ("semantic segmentation", "SemanticSegment", "no loss per image yet"),
    "yolo26n-depth.yaml": ("depth", "Depth", "no loss per image yet"),
    "yolo11-cls-resnet18.yaml": (
        "torchvision backbones", "TorchVision", "another library would download their weights",
    ),
}  # fmt: skip
"""Architectures that are refused: what they are, the layer that tells, and why."""


def settled(architecture: str, path: Path) -> Path:
    """Save public weights: random ones with BatchNorm statistics of noise, sure of nothing."""
    torch.manual_seed(0)
    blank = open_source(architecture)
    model: Any = known_task(blank).build(blank, names=len(OLD_NAMES), kpt_shape=None)
    model.names = dict(enumerate(OLD_NAMES))
    with torch.no_grad():
        for momentum in (1.0, 0.5, 0.5):
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = momentum
            model.train()(torch.rand(8, 3, SIDE, SIDE))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03
    model.args = dict(DEFAULT_CFG_DICT)
    torch.save({"model": model, "train_args": {}}, path)
    return path


class Examined(PrivateDetectionTrainer):
    """A run whose check is the full one, on the user's images."""

    report: CheckReport | None = None

    def _check_step(self) -> CheckReport:
        self.report = checking.check_trainer(self, full=True, real=True)
        self.report.require()
        return self.report


@dataclass
class Examination:
    """One row, examined: each column asks one question.

    Attributes:
        row: What is examined.
        data: A small data set of its task.
        folder: An empty folder.
        settings: More arguments of the run.
    """

    row: Row
    data: Path
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def weights(self) -> Path:
        return settled(self.row.architecture, self.folder / "public.pt")

    @cached_property
    def trainer(self) -> Examined:
        given = {
            "data": str(self.data),
            "model": str(self.weights),
            "epsilon": 8,
            "batch": 5,
            "steps": 2,
            "imgsz": SIDE,
            "val_data": "public",
            "project": str(self.folder / "runs"),
            **self.settings,
        }
        trainer = Examined(overrides=given, _callbacks=default_callbacks())
        trainer.train()
        return trainer

    @property
    def result(self) -> TrainingResult:
        assert self.trainer.result is not None
        return self.trainer.result

    def loss(self) -> None:
        """Each image's loss in a batch is Ultralytics' own of a batch of that image."""
        ours, theirs = losses(self.weights)
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=1e-5)

    def layers(self) -> None:
        """With all layers training, the fast engine gives what autograd gives for single images."""
        # Deep networks of random weights amplify what is rounded; one assigner knows float32 only.
        single = self.row.family == "YOLO26" and self.row.task == "segment"
        precision, tolerance = (torch.float32, 2e-3) if single else (torch.float64, 1e-5)
        own, reference = (
            gradients(self.weights, engine, precision) for engine in ("discreet", "reference")
        )
        for name, (norms, total) in reference.items():
            for mine, other in ((own[name][0], norms), (own[name][1], total)):
                assert float((mine - other).norm()) <= tolerance * float(other.norm()) + 1e-12, name

    def check(self) -> None:
        """`discreet check --full` passes, with all three engines."""
        report = self.trainer.report
        assert report is not None and report.passed, report
        assert {"engines", "contributions"} <= {finding.probe for finding in report.findings}

    def trains(self) -> None:
        """Steps are made, their losses are numbers, and what trains has moved."""
        with (self.result.internal / "steps.csv").open(encoding="utf-8") as stream:
            steps = list(csv.DictReader(stream))
        assert len(steps) == 2
        terms = self.trainer.per_image_loss.names
        assert all(math.isfinite(float(step[term])) for step in steps for term in terms)
        assert self.result.record.steps.executed == 2

    def releases(self) -> None:
        """A stranger finds no fault in the release, and the task's metrics are in it."""
        found = verify_release(self.result.release)
        assert found.valid, found.faults
        assert set(self.result.metrics or {}) == set(self.trainer.task.metrics)

    def reloads(self) -> None:
        """Stock Ultralytics loads the weights, knows the classes, and predicts."""
        model = self._stock()
        assert model.task == self.row.task
        assert tuple(model.names.values()) == NAMES or self.row.task == "classify"
        assert set(model.names.values()) == set(NAMES)
        model.predict(np.zeros((SIDE, SIDE, 3), np.uint8), imgsz=SIDE, verbose=False)

    def exports(self) -> None:
        """Stock Ultralytics exports the weights to ONNX."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's, of stock layers
            exported = self._stock().export(
                format="onnx", imgsz=SIDE, simplify=False, verbose=False
            )
        assert Path(exported).stat().st_size > 0
        Path(exported).unlink()  # it lies beside the weights, in the release

    def _stock(self) -> Any:
        return (RTDETR if self.row.transformer else YOLO)(str(self.result.weights))


COLUMNS: dict[str, Callable[[Examination], None]] = {
    "loss per image": Examination.loss,
    "all layers": Examination.layers,
    "check": Examination.check,
    "trains": Examination.trains,
    "releases": Examination.releases,
    "reloads": Examination.reloads,
    "exports": Examination.exports,
}


def stand_ins_of(model: Any, size: int = SIDE) -> StandIns:
    """Who makes images of a model's task."""
    head = model.model[-1]
    return StandIns(
        task=known_task(model),
        size=size,
        classes=len(model.names),
        kpt_shape=tuple(head.kpt_shape) if hasattr(head, "kpt_shape") else None,
    )


def batch_of(maker: StandIns, objects: tuple[int, ...] = OBJECTS) -> dict[str, Any]:
    """Made-up images as the model takes them."""
    images = [maker.image(n, torch.Generator().manual_seed(i)) for i, n in enumerate(objects)]
    batch = joined(images)
    return batch | {"img": batch["img"].float() / 255 if batch["img"].max() > 1 else batch["img"]}


def ready(weights: Path) -> Any:
    """The model of a file, as it trains."""
    model: Any = open_source(weights)
    model.nc = len(model.names)  # a trainer would
    attach_settings(model, DEFAULT_CFG_DICT)
    train_mode(model)
    return model


def losses(weights: Path) -> tuple[Tensor, Tensor]:
    """Losses of single images in a batch, and Ultralytics' losses of batches of one."""
    model = ready(weights)
    batch = batch_of(stand_ins_of(model))
    stock: list[Tensor] = []
    with torch.no_grad():
        ours = PerImageLoss(model)(model(batch["img"]), batch).sum(1)
        for i in range(len(ours)):
            alone = images_of(batch, i, i + 1)
            whole = model.loss(alone, preds=model.predict(alone["img"]))[0]
            stock.append(torch.as_tensor(whole).sum())
    return ours, torch.stack(stock)


def gradients(
    weights: Path, engine: str, precision: torch.dtype
) -> dict[str, tuple[Tensor, Tensor]]:
    """Of every parameter: squared norms of the images' gradients, and the gradients' sum."""
    model = ready(weights).to(precision)
    batch = batch_of(stand_ins_of(model))
    batch |= {"img": batch["img"].to(precision)}
    loss = PerImageLoss(model)
    parameters = select_trainable(model, "all", imgsz=SIDE)
    found = make_engine(engine, model, parameters).per_example_gradients(
        lambda: loss(model(batch["img"]), batch).sum(1)
    )
    ones = {name: torch.ones_like(norms) for name, norms in found.squared_norms.items()}
    sums = found.weighted_sum(ones)
    return {name: (found.squared_norms[name], sums[name]) for name in parameters}
