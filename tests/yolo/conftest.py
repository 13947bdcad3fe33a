"""A small model and a small data set, made here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from ultralytics.utils import DEFAULT_CFG_DICT

from discreet.api import train
from discreet.demo.dataset import write_dataset
from discreet.demo.scenes import PRIVATE
from discreet.gradients import make_engine
from discreet.planning import plan_training
from discreet.result import TrainingResult
from discreet.statement import consistency, record
from discreet.statement.figures import figures_of
from discreet.yolo import preparation, timing
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.model import attach_settings, build_model, open_source, set_norm, train_mode
from discreet.yolo.parts import select_trainable

ARCHITECTURE = str(Path(__file__).parents[2] / "src/discreet/demo/demo-model.yaml")
NAMES = ("red cell", "white cell", "platelet")
IMGSZ = 64
Run = Callable[..., TrainingResult]
Value = TypeVar("Value")


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data.yaml` of 24 training and 8 validation scenes. Never written to again."""
    folder = tmp_path_factory.mktemp("scenes")
    return write_dataset(folder, style=PRIVATE, train=24, val=8, size=IMGSZ, seed=5)


# Mistakes that take the images or views of one unit apart: place, mistake, the probe that sees it.
TAKEN_APART = [
    pytest.param(
        "discreet.yolo.loop.units_of", lambda *_: (None, 1.0), "engine", id="clipped apart"
    ),
    pytest.param("discreet.yolo.loading._together", lambda _units: {}, "units", id="loaded apart"),
    pytest.param(
        "discreet.yolo.loading._flat",
        lambda units: [i for each in zip_longest(*units) for i in each if i is not None],
        "units",
        id="clipped with another's",
    ),
]


def remembering(function: Callable[..., Value]) -> Callable[..., Value]:
    """The function, which works things out once for equal arguments."""
    known: dict[str, Value] = {}

    def remembered(*args: Any, **kwargs: Any) -> Value:
        key = repr((args, kwargs))
        if key not in known:
            known[key] = function(*args, **kwargs)
        return known[key]

    return remembered


@pytest.fixture(scope="session", autouse=True)
def _accounts_of_equal_runs_once() -> Generator[None]:
    """Equal runs are planned once; what follows from equal charges is worked out once by runs, and
    once by verifying."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "plan_training", remembering(plan_training))
        patch.setattr(record, "figures_of", remembering(figures_of))
        patch.setattr(consistency, "figures_of", remembering(figures_of))
        yield


@pytest.fixture
def run(scenes: Path, tmp_path: Path) -> Run:
    """Train on `scenes` for three steps; arguments change that, and None takes one away."""

    def start(**arguments: Any) -> TrainingResult:
        given = {
            "data": str(scenes),
            "model": ARCHITECTURE,
            "epsilon": 8,
            "batch": 8,
            "steps": 3,
            "imgsz": IMGSZ,
            "val": False,
            "project": str(tmp_path / "runs"),
        }
        return train({key: v for key, v in {**given, **arguments}.items() if v is not None})

    return start


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is timed once or twice, for tests that do not look at how long it took."""
    for name in ("_SECONDS", "_SECONDS_OF_FRONT", "_SECONDS_OF_UPDATE"):
        monkeypatch.setattr(timing, name, 0.01)


def make_model(norm: str = "frozen", trainable: str = "all") -> nn.Module:
    """A small detector with random weights and settled BatchNorm statistics, ready to train."""
    torch.manual_seed(0)
    model = build_model(open_source(ARCHITECTURE), names=NAMES, imgsz=IMGSZ)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(8, 3, IMGSZ, IMGSZ))
        for branch in model.model[-1].cv3:
            branch[-1].bias.zero_()  # as sure of its classes as a model in mid-training
    attach_settings(model, DEFAULT_CFG_DICT)
    set_norm(model, norm)
    select_trainable(model, trainable)
    train_mode(model)
    return model


def make_batch(boxes: Sequence[int], *, seed: int = 1) -> dict[str, Tensor]:
    """Random images with these numbers of boxes; image i depends on (seed, i) only."""
    images, index, classes, places = [], [], [], []
    for i, count in enumerate(boxes):
        generator = torch.Generator().manual_seed(1000 * seed + i)
        images.append(torch.rand(3, IMGSZ, IMGSZ, generator=generator))
        centre = torch.rand(count, 2, generator=generator) * 0.6 + 0.2
        size = torch.rand(count, 2, generator=generator) * 0.35 + 0.05
        places.append(torch.cat([centre, size], 1))
        classes.append(torch.randint(0, 3, (count, 1), generator=generator).float())
        index.append(torch.full((count,), float(i)))
    return {
        "img": torch.stack(images),
        "batch_idx": torch.cat(index),
        "cls": torch.cat(classes),
        "bboxes": torch.cat(places),
    }


def only(batch: Mapping[str, Tensor], image: int) -> dict[str, Tensor]:
    """One image of a batch, as a batch of its own."""
    mine = batch["batch_idx"] == image
    return {
        "img": batch["img"][image : image + 1],
        "batch_idx": batch["batch_idx"][mine] * 0,
        "cls": batch["cls"][mine],
        "bboxes": batch["bboxes"][mine],
    }


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def contributions(model: nn.Module, batch: dict[str, Tensor], engine: str = "discreet") -> Tensor:
    """Gradient of each image's loss as the engine sees it: (B, P)."""
    parameters, loss = trained(model), PerImageLoss(model)
    running = make_engine(engine, model, parameters)
    gradients = running.per_example_gradients(lambda: loss(model(batch["img"]), batch).sum(1))
    rows = []
    for i in range(len(batch["img"])):
        weight = torch.zeros(len(batch["img"]))
        weight[i] = 1.0
        sums = gradients.weighted_sum(dict.fromkeys(parameters, weight))
        rows.append(torch.cat([sums[name].flatten() for name in parameters]))
    return torch.stack(rows)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of all that is in a folder."""
    return {
        str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
    }


def counts(result: TrainingResult) -> tuple[int, int, int]:
    """Steps planned, charged and executed, as the statement has them."""
    steps = result.record.steps
    return steps.planned, steps.charged, steps.executed


def relative(a: Tensor, b: Tensor) -> float:
    """‖a − b‖ / ‖b‖."""
    return float((a.detach() - b.detach()).norm() / b.detach().norm())
