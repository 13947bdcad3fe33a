"""Settings and data that cannot be trained on privately."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from discreet.yolo import train as training

from .plant import Plant, Tool, wrap
from .runs import Training

Patch = pytest.MonkeyPatch


def asking(**given: Any) -> Any:
    def plant(patch: Patch, run: Training) -> None:
        run.given |= given

    return plant


def class_weights_in_the_model(patch: Patch, run: Training) -> None:
    def weighted(own: Any, *args: Any, **kwargs: Any) -> Any:
        model = own(*args, **kwargs)
        model.class_weights = torch.tensor([1.0, 5.0, 1.0])
        return model

    wrap(patch, training, "build_model", weighted)


def listed_twice(patch: Patch, run: Training) -> None:
    (image, *others) = sorted((run.scenes.parent / "images" / "train").iterdir())
    lines = map(str, (image, *others, image))
    run.given["data"] = _listing(run.folder, "\n".join(lines), run.scenes)


def copied(patch: Patch, run: Training) -> None:
    folder = run.folder / "copy"
    shutil.copytree(run.scenes.parent, folder)
    image = min((folder / "images" / "train").iterdir())
    shutil.copy(image, image.with_stem("another name"))
    run.given["data"] = str(folder / run.scenes.name)


def teacher_of_these_images(patch: Patch, run: Training) -> None:
    """As Ultralytics leaves it: the checkpoint notes its data set."""
    checkpoint = torch.load(run.given["model"], weights_only=False)
    checkpoint["train_args"] = {"data": str(run.scenes)}
    file = run.folder / "teacher.pt"
    torch.save(checkpoint, file)
    run.given |= {"teacher": str(file), "teacher_data": "public"}


def teacher_from_nowhere(patch: Patch, run: Training) -> None:
    run.given["teacher"] = run.given["model"]


def _listing(folder: Path, text: str, scenes: Path) -> str:
    (folder / "list.txt").write_text(text)
    data = yaml.safe_load(scenes.read_text())
    data |= {"path": str(scenes.parent), "train": str(folder / "list.txt")}
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    return str(folder / "data.yaml")


def setting(name: str, why: str, **given: Any) -> Plant:
    (key,) = given
    return Plant(
        name=name,
        why=why,
        runs=(Training,),
        plant=asking(**given),
        found_by={Tool.CONFIGURATION: key},
    )


PLANTS = (
    setting("mosaic across images", "One image is in several clipped gradients.", mosaic=1.0),
    setting("mixup", "Two images are blended into one.", mixup=0.5),
    setting("shapes from the batch", "An image's shape depends on its neighbours.", rect=True),
    setting("class weights from labels", "Label counts are private, and unnoised.", cls_pw=0.5),
    setting("anchors from boxes", "They are fitted to private boxes.", autoanchor=True),
    setting(
        "Ultralytics' own distillation",
        "It divides by the batch, and asks nobody where the teacher comes from.",
        distill_model="teacher.pt",
    ),
    Plant(
        name="distillation from a private teacher",
        why="What the teacher saw without noise is passed on.",
        runs=(Training,),
        plant=teacher_of_these_images,
        found_by={Tool.CONFIGURATION: "here is this data set"},
    ),
    Plant(
        name="a teacher without provenance",
        why="It may have seen the private images.",
        runs=(Training,),
        plant=teacher_from_nowhere,
        found_by={Tool.CONFIGURATION: "where the teacher comes from"},
    ),
    setting(
        "best.pt by private validation",
        "Which step is kept depends on private scores.",
        patience=5,
    ),
    setting("fp16 with loss scaling", "Steps are skipped where gradients overflow.", amp=True),
    setting("label plots", "Private images and label counts are drawn.", plots=True),
    setting("images cached beside the data", "Decoded images stay behind.", cache="disk"),
    setting("batch size by free memory", "It sets q, and is not public.", batch=-1),
    setting("a share of the images", "n is not what the plan says.", fraction=0.5),
    Plant(
        name="class weights inside the model",
        why="A model that carries a histogram of labels weighs its loss by it.",
        runs=(Training,),
        plant=class_weights_in_the_model,
        found_by={Tool.CONFIGURATION: "class weights"},
    ),
    Plant(
        name="an image listed twice",
        why="It counts twice: its guarantee would be that of a group of two.",
        runs=(Training,),
        plant=listed_twice,
        found_by={Tool.CONFIGURATION: "twice"},
    ),
    Plant(
        name="an image under two names",
        why="A copy is the same unit: its guarantee would be that of a group of two.",
        runs=(Training,),
        plant=copied,
        found_by={Tool.CONFIGURATION: "another name"},
    ),
)
