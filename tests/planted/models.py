"""Mistakes in detectors and their losses: one unit moves another unit's gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from discreet.yolo import distillation, single_losses, stages
from discreet.yolo import train as training
from discreet.yolo.batches import OF_OBJECTS
from discreet.yolo.loop import StepLoop
from discreet.yolo.loss import PerImageDetectionLoss
from discreet.yolo.single_losses import SingleImageLoss

from .plant import Plant, Tool, wrap
from .runs import Segmenting, Training

Patch = pytest.MonkeyPatch


def batch_norm_that_trains(patch: Patch, run: Training) -> None:
    run.given["trainable"] = "film+head"
    patch.setattr(training, "train_mode", lambda model: model.train())


def batch_norm_with_frozen_affine(patch: Patch, run: Training) -> None:
    patch.setattr(training, "train_mode", lambda model: model.train())


class Mean(nn.Module):
    """BatchNorm by another name: no class tells."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def centre_over_the_batch(patch: Patch) -> None:
    def centred(own: Any, model: Any) -> None:
        own(model)
        model.model[1].act = Mean()

    wrap(patch, training, "train_mode", centred)


def mean_of_the_batch(patch: Patch, run: Training) -> None:
    run.given["trainable"] = "whole_head"
    centre_over_the_batch(patch)


def normalised_over_the_batch(patch: Patch, run: Training) -> None:
    """Ultralytics' own: all terms over the target scores of all images."""

    def per_image(own: Any, self: Any, predictions: Any, batch: Any) -> Tensor:
        seen: list[Tensor] = []
        assigner = self.assigner

        def noting(*args: Any) -> Any:
            found = assigner(*args)
            seen.append(found[2].sum((1, 2)).clamp(min=1))
            return found

        self.assigner = noting
        try:
            terms = own(self, predictions, batch)
        finally:
            self.assigner = assigner
        return terms * (seen[0] / seen[0].sum())[:, None]

    wrap(patch, PerImageDetectionLoss, "per_image", per_image)


def class_term_over_the_batch(patch: Patch, run: Training) -> None:
    def per_image(own: Any, self: Any, predictions: Any, batch: Any) -> Tensor:
        terms = own(self, predictions, batch).clone()
        terms[:, 1] = terms[:, 1] / terms[:, 1].detach().sum()
        return terms

    wrap(patch, PerImageDetectionLoss, "per_image", per_image)


def masks_over_the_batch(patch: Patch, run: Training) -> None:
    """Ultralytics' own, in effect: mask terms over the objects of all images."""

    def per_image(own: Any, self: Any, predictions: Any, batch: Any) -> Tensor:
        terms = own(self, predictions, batch).clone()
        objects = torch.bincount(batch["batch_idx"].long(), minlength=len(terms))
        terms[:, 1] = terms[:, 1] * objects / objects.sum()
        return terms

    wrap(patch, SingleImageLoss, "per_image", per_image)


def objects_of_all(patch: Patch, run: Training) -> None:
    def everyone(own: Any, batch: Any, start: int, stop: int) -> Any:
        alone = {key: value for key, value in batch.items() if key in OF_OBJECTS}
        return own(batch, start, stop) | alone | {"batch_idx": torch.zeros(len(batch["cls"]))}

    wrap(patch, single_losses, "images_of", everyone)


def unnoised_shadow(patch: Patch, run: Training) -> None:
    """An average of the weights that follows the gradient before its noise."""

    def with_shadow(own: Any, model: Any) -> None:
        own(model)
        model.register_buffer("shadow", model.model[-1].cv2[0][-1].weight.detach().clone())

    def following(own: Any, self: Any, *args: Any) -> Any:
        found = own(self, *args)
        model = self.trainer.model
        name = f"model.{len(model.model) - 1}.cv2.0.2.weight"
        ones = torch.ones_like(found.squared_norms[name])
        sums = found.weighted_sum(dict.fromkeys(found.squared_norms, ones))
        model.shadow -= 1e-3 * sums[name]
        return found

    wrap(patch, training, "train_mode", with_shadow)
    wrap(patch, StepLoop, "gradients_of", following)


def forgotten_biases(patch: Patch, run: Training) -> None:
    """Biases train with an optimizer of their own, which gets their plain gradients."""

    def weights_only(own: Any, *args: Any, **kwargs: Any) -> Any:
        return {n: p for n, p in own(*args, **kwargs).items() if not n.endswith("bias")}

    wrap(patch, stages, "select_trainable", weights_only)


def with_a_teacher(run: Training) -> None:
    run.given |= {"teacher": run.given["model"], "teacher_data": "public"}


def teacher_that_trains(patch: Patch, run: Training) -> None:
    with_a_teacher(run)
    patch.setattr(distillation, "freeze", lambda model: model.train())


def teacher_over_the_batch(patch: Patch, run: Training) -> None:
    with_a_teacher(run)

    def taught(own: Any, self: Any, *args: Any) -> Tensor:
        terms = own(self, *args)
        return terms / terms.detach().sum(0).clamp(min=1)

    wrap(patch, distillation.DistilledLoss, "_taught", taught)


PLANTS = (
    Plant(
        name="a teacher in training mode",
        why="Its BatchNorm mixes images: what it says of one depends on those beside it.",
        runs=(Training,),
        plant=teacher_that_trains,
        found_by={Tool.CHECK: "losses.*teacher's"},
    ),
    Plant(
        name="a teacher's terms over the batch",
        why="As stock distillation has it: one image's part is divided by all images' parts.",
        runs=(Training,),
        plant=teacher_over_the_batch,
        found_by={Tool.CHECK: "losses.*teacher's"},
    ),
    Plant(
        name="BatchNorm in training mode",
        why="Every image is normalised by the statistics of all, and running statistics move.",
        runs=(Training,),
        plant=batch_norm_that_trains,
        found_by={Tool.CHECK: r"model\.0\.bn\.running_mean"},
    ),
    Plant(
        name="BatchNorm with frozen γ and β, but statistics of the batch",
        why="Freezing its parameters does not keep a BatchNorm from mixing images.",
        runs=(Training,),
        plant=batch_norm_with_frozen_affine,
        found_by={Tool.CHECK: r"model\.0\.bn \(BatchNorm2d\)"},
    ),
    Plant(
        name="activations centred over the batch",
        why="A layer that subtracts the batch's mean is a BatchNorm, whatever its class is called.",
        runs=(Training,),
        plant=mean_of_the_batch,
        found_by={Tool.CHECK: r"model\.1\.act \(Mean\)"},
    ),
    Plant(
        name="loss divided by the batch's target scores",
        why="Ultralytics' own loss: the boxes of one image scale the gradient of every other.",
        runs=(Training,),
        plant=normalised_over_the_batch,
        found_by={Tool.CHECK: r"loss term cls"},
    ),
    Plant(
        name="one loss term divided by its sum over the batch",
        why="One term of three is enough for images to meet.",
        runs=(Training,),
        plant=class_term_over_the_batch,
        found_by={Tool.CHECK: r"loss term cls"},
    ),
    Plant(
        name="mask loss divided by the batch's objects",
        why="Ultralytics' own loss of masks: the objects of one image scale every other's masks.",
        runs=(Segmenting,),
        plant=masks_over_the_batch,
        found_by={Tool.CHECK: r"loss term seg"},
    ),
    Plant(
        name="masks matched with the objects of all images",
        why="Which object is whose was lost when images were taken one by one.",
        runs=(Segmenting,),
        plant=objects_of_all,
        found_by={Tool.CHECK: r"loss term (box|seg|cls)"},
    ),
    Plant(
        name="average of un-noised weights",
        why="An EMA that follows gradients before their noise is released with the model.",
        runs=(Training,),
        plant=unnoised_shadow,
        found_by={Tool.CHECK: r"state: shadow"},
    ),
    Plant(
        name="biases with an optimizer of their own",
        why="What trains and is not declared gets no noise.",
        runs=(Training,),
        plant=forgotten_biases,
        found_by={Tool.CHECK: r"parameters: .*bias.*gets no noise"},
    ),
)
