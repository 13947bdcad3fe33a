"""What a run may leave behind in its release."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, PngImagePlugin
from torch import nn

from discreet.statement import sealing
from discreet.yolo import release

from .plant import Plant, Tool, wrap
from .runs import Release

Patch = pytest.MonkeyPatch
Checkpoint = dict[str, Any]


def in_checkpoint(change: Callable[[Checkpoint], object]) -> Any:
    """Change what is saved, on its way to the disk."""

    def plant(patch: Patch, run: Release) -> None:
        def save(own: Any, content: Checkpoint, stream: Any) -> None:
            content = {**content, "model": copy.deepcopy(content["model"])}
            change(content)
            own(content, stream)

        wrap(patch, torch, "save", save)

    return plant


def beside_the_weights(name: str, content: bytes) -> Any:
    def plant(patch: Patch, run: Release) -> None:
        def write(own: Any, path: Path, *args: Any, **kwargs: Any) -> None:
            own(path, *args, **kwargs)
            (path.parent / name).write_bytes(content)

        wrap(patch, release, "write_weights", write)

    return plant


def losses_on_record(patch: Patch, run: Release) -> None:
    run.facts["configuration"] = {"imgsz": 64, "box_loss": 1.25}


def picture() -> bytes:
    """A page with a detection on an image that says where it comes from."""
    stream, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("Source", "patient 7")
    Image.new("RGB", (8, 8)).save(stream, "PNG", pnginfo=info)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<html><img alt="x" src="data:image/png;base64,{data}"></html>'.encode()


def drawn_with_its_metadata(patch: Patch, run: Release) -> None:
    patch.setattr(sealing, "render_report", lambda *_, **__: picture())


def rename_class(content: Checkpoint) -> None:
    content["model"].names = {**content["model"].names, 0: "anna-1954"}


def leftover(name: str, why: str, change: Callable[[Checkpoint], object], said: str) -> Plant:
    return Plant(
        name=name,
        why=why,
        runs=(Release,),
        plant=in_checkpoint(change),
        found_by={Tool.SCAN: said},
    )


PLANTS = (
    leftover(
        "training loss in the release",
        "Losses of private images are outputs without noise.",
        lambda c: c.update(train_results={"train/box_loss": [1.0]}),
        "train_results",
    ),
    leftover(
        "EMA with un-noised weights in the release",
        "Ultralytics' checkpoint has room for a second model, which nobody accounted for.",
        lambda c: c.update(ema=copy.deepcopy(c["model"])),
        "'ema' is not empty",
    ),
    leftover(
        "optimizer state of un-noised parameters",
        "Momentum and variance are functions of private gradients.",
        lambda c: c.update(optimizer={"state": {0: torch.zeros(3)}}),
        "'optimizer' is not empty",
    ),
    leftover(
        "the score of the best epoch",
        "A score on private images, and a choice by it.",
        lambda c: c.update(best_fitness=0.9),
        "best_fitness",
    ),
    leftover(
        "the run's settings with its paths",
        "Folders tell of people and wards; seeds repeat the augmentation.",
        lambda c: c["train_args"].update(data="/mri/ward_b/data.yaml", seed=3),
        "settings",
    ),
    leftover(
        "the loss function in the model",
        "It holds the last batch's targets.",
        lambda c: setattr(c["model"], "criterion", nn.Identity()),
        "training loss",
    ),
    leftover(
        "code beside the model",
        "Whoever opens the file runs it.",
        lambda c: setattr(c["model"], "loader", Path("x")),
        "not in stock weights",
    ),
    leftover(
        "a file's name for a class",
        "Names of files are names of people.",
        rename_class,
        "anna-1954",
    ),
    Plant(
        name="label plots in the release",
        why="Ultralytics draws label counts and a mosaic of training images.",
        runs=(Release,),
        plant=beside_the_weights("labels.jpg", b"x"),
        found_by={Tool.SCAN: r"labels\.jpg"},
    ),
    Plant(
        name="best.pt in the release",
        why="A second model, chosen by private scores.",
        runs=(Release,),
        plant=beside_the_weights("best.pt", b"x"),
        found_by={Tool.SCAN: r"best\.pt"},
    ),
    Plant(
        name="a picture that says where it comes from",
        why="Metadata of an image in the report names a patient.",
        runs=(Release,),
        plant=drawn_with_its_metadata,
        found_by={Tool.SCAN: r"report\.html"},
    ),
    Plant(
        name="training loss on record",
        why="`configuration` is no place for what was measured.",
        runs=(Release,),
        plant=losses_on_record,
        found_by={Tool.SCAN: "box_loss"},
    ),
)
