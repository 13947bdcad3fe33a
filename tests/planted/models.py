"""Mistakes in models and losses: one unit moves another unit's gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from discreet.checking import Unit
from discreet.yolo import distillation, single_losses
from discreet.yolo import train as training
from discreet.yolo.batches import OF_OBJECTS
from discreet.yolo.loop import StepLoop
from discreet.yolo.loss import PerImageDetectionLoss
from discreet.yolo.single_losses import SingleImageLoss

from .plant import Plant, Tool, wrap
from .runs import Segmenting, Step, Training
from .small_step import Net, batch_of, losses_of

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

    wrap(patch, training, "select_trainable", weights_only)


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


# ---- a model of the user's own ----


def left_out(patch: Patch, run: Step) -> None:
    run.changes["parameters"] = lambda own: {n: p for n, p in own.items() if n != "idle.weight"}


class Spare(Net):
    """Its BatchNorm keeps no statistics and is not used: nothing but the engine sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.BatchNorm2d(8, affine=False, track_running_stats=False)


class Counting(Net):
    """Keeps a running mean of what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
        return super().forward(x)


class Keeping(Net):
    """Keeps something of what it sees in a plain attribute, which no list of buffers shows."""

    def __init__(self, first: Any, keep: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.kept, self._keep = first, keep

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self._keep(self.kept, x.detach())
        return super().forward(x)


class RunningLoss:
    """A loss object that weighs by the mean of what it saw."""

    def __init__(self) -> None:
        self.mean = torch.ones(())

    def __call__(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        found = losses_of(model, batch)
        self.mean = 0.9 * self.mean + 0.1 * found.detach().mean()
        return found


class KeptOnTheWayBack(nn.Module):
    """Stores gradients of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        if x.requires_grad:
            x.register_hook(lambda grad: self.seen.update(last=grad.detach().sum()))
        return x


class Cropping(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[..., :8])


def padded_to_the_batch(patch: Patch, run: Step) -> None:
    def padded(units: Sequence[Unit]) -> tuple[Tensor, Tensor]:
        images, targets = batch_of(units)
        return nn.functional.pad(images, (0, max(unit.number for unit in units))), targets

    run.changes |= {"model": Cropping, "batch_of": padded}


def always_the_first(units: Sequence[Unit]) -> tuple[Tensor, Tensor]:
    return batch_of([Unit(number=0) for _ in units])


def never_the_same(units: Sequence[Unit]) -> tuple[Tensor, Tensor]:
    images, targets = batch_of(units)
    return images + torch.randn_like(images), targets


def batches(make: Callable[[Sequence[Unit]], tuple[Tensor, Tensor]]) -> Any:
    def plant(patch: Patch, run: Step) -> None:
        run.changes["batch_of"] = make

    return plant


class MixingBackward(torch.autograd.Function):
    """Passes everything on unchanged, and mixes gradients of units on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ARG004
        return grad / grad.norm()


class Mixer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return MixingBackward.apply(x)


class InCompany(nn.Module):
    """Leaves few units alone."""

    def __init__(self, least: int, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.least, self.then = least, then

    def forward(self, x: Tensor) -> Tensor:
        return x if len(x) < self.least else self.then(x)


def over_the_count(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Normalised as detectors are: no positive target counts as one."""
    return losses_of(model, batch) / max(1, int((batch[1] > 0).sum()))


class Softmax(nn.Module):
    """Units compete for attention."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((1, 2, 3), keepdim=True).softmax(0)


def model(make: Any) -> Any:
    def plant(patch: Patch, run: Step) -> None:
        run.changes["model"] = make

    return plant


def losses(function: Any) -> Any:
    def plant(patch: Patch, run: Step) -> None:
        run.changes["losses"] = function

    return plant


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
    Plant(
        name="a parameter left out of the declaration",
        why="The model's list of trainable parameters and the mechanism's are not the same.",
        runs=(Step,),
        plant=left_out,
        found_by={Tool.CHECK: r"idle\.weight"},
        probes=frozenset({"parameters"}),
    ),
    Plant(
        name="a BatchNorm that is not used yet",
        why="It mixes units as soon as somebody calls it.",
        runs=(Step,),
        plant=model(Spare),
        found_by={Tool.CHECK: r"spare"},
        probes=frozenset({"engine"}),
    ),
    Plant(
        name="a running mean of inputs",
        why="A buffer takes in private images without noise, and is released with the model.",
        runs=(Step,),
        plant=model(Counting),
        found_by={Tool.CHECK: r"seen"},
        probes=frozenset({"state"}),
    ),
    Plant(
        name="inputs padded to the largest of the batch",
        why="The shape of one unit depends on the units beside it.",
        runs=(Step,),
        plant=padded_to_the_batch,
        found_by={Tool.CHECK: r"the model's input"},
        probes=frozenset({"shapes"}),
    ),
    Plant(
        name="a loss that counts all targets",
        why="A term that depends on no parameter still shows other units in every loss.",
        runs=(Step,),
        plant=losses(lambda model, batch: losses_of(model, batch) + batch[1].abs().sum()),
        found_by={Tool.CHECK: r"the loss"},
        probes=frozenset({"losses"}),
    ),
    Plant(
        name="mean loss handed out to all units",
        why="Per-unit gradients of a mean over the batch are gradients of all units.",
        runs=(Step,),
        plant=losses(lambda model, batch: losses_of(model, batch).mean().expand(len(batch[1]))),
        found_by={Tool.CHECK: r"losses: the loss"},
    ),
    Plant(
        name="gradients rescaled over the batch on the way back",
        why="Nothing in the forward pass tells of it.",
        runs=(Step,),
        plant=model(lambda: Net(Mixer())),
        found_by={Tool.CHECK: r"norm \(Mixer\)"},
        probes=frozenset({"contributions"}),
    ),
    Plant(
        name="softmax over the batch",
        why="Units compete: one unit's logit lowers every other's.",
        runs=(Step,),
        plant=model(lambda: Net(Softmax())),
        found_by={Tool.CHECK: r"norm \(Softmax\)"},
    ),
    Plant(
        name="activations centred over four images or more",
        why="A layer that waits for company passes every comparison of two or three images.",
        runs=(Step,),
        plant=model(lambda: Net(InCompany(4, lambda x: x - x.mean(0)))),
        found_by={Tool.CHECK: r"norm \(InCompany\)"},
        probes=frozenset({"losses", "contributions"}),
    ),
    Plant(
        name="activations centred over a whole batch",
        why="The same with more images than a check is given, and fewer than a step draws.",
        runs=(Step,),
        plant=model(lambda: Net(InCompany(12, lambda x: x - x.mean(0)))),
        found_by={Tool.CHECK: r"norm \(InCompany\)"},
        probes=frozenset({"losses", "contributions"}),
    ),
    Plant(
        name="every image takes from the third after it",
        why="Neighbours in a batch are not the only ones who can meet.",
        runs=(Step,),
        plant=model(lambda: Net(InCompany(4, lambda x: x + 0.1 * x.roll(3, 0)))),
        found_by={Tool.CHECK: r"norm \(InCompany\)"},
        probes=frozenset({"losses", "contributions"}),
    ),
    Plant(
        name="gradients of a large batch rescaled on the way back",
        why="Nothing in the forward pass tells of it, and nothing in small batches.",
        runs=(Step,),
        plant=model(lambda: Net(InCompany(5, MixingBackward.apply))),
        found_by={Tool.CHECK: r"contributions: norm \(InCompany\)"},
        probes=frozenset({"contributions"}),
    ),
    Plant(
        name="loss divided by the number of positive targets, or one",
        why="Batches with none and with one are scaled alike; only larger ones show it.",
        runs=(Step,),
        plant=losses(over_the_count),
        found_by={Tool.CHECK: r"losses: the loss"},
        probes=frozenset({"losses", "contributions"}),
    ),
    Plant(
        name="a queue of past activations in a list",
        why="Embeddings of past images wait in an attribute until a later step takes them.",
        runs=(Step,),
        plant=model(lambda: Keeping([], lambda queue, x: [*queue, *x.mean((1, 2, 3))][-64:])),
        found_by={Tool.CHECK: r"state: kept"},
        probes=frozenset({"state"}),
    ),
    Plant(
        name="a slow average in an attribute",
        why="No buffer, and too slow to be seen in any loss.",
        runs=(Step,),
        plant=model(
            lambda: Keeping(torch.zeros(()), lambda m, x: m * (1 - 1e-6) + 1e-6 * x.mean())
        ),
        found_by={Tool.CHECK: r"state: kept"},
        probes=frozenset({"state"}),
    ),
    Plant(
        name="a sum of Python numbers",
        why="A float is no tensor, but remembers images all the same.",
        runs=(Step,),
        plant=model(lambda: Keeping(0.0, lambda total, x: total + float(x.mean()))),
        found_by={Tool.CHECK: r"state: kept"},
        probes=frozenset({"state"}),
    ),
    Plant(
        name="gradients stored by a hook",
        why="What is private on the way back stays in the model.",
        runs=(Step,),
        plant=model(lambda: Net(KeptOnTheWayBack())),
        found_by={Tool.CHECK: r"state: norm\.seen"},
        probes=frozenset({"state"}),
    ),
    Plant(
        name="a loss object that remembers",
        why="State of private images beside the model reaches later steps.",
        runs=(Step,),
        plant=losses(RunningLoss()),
        found_by={Tool.CHECK: r"state: loss_fn"},
        probes=frozenset({"state"}),
    ),
    Plant(
        name="a detached loss",
        why="No unit has a gradient, and whatever is compared with nothing is alike.",
        runs=(Step,),
        plant=losses(lambda model, batch: losses_of(model, batch).detach()),
        found_by={Tool.CHECK: r"substance: the loss: no unit has a gradient"},
        probes=frozenset({"substance"}),
    ),
    Plant(
        name="a loss that is not a number",
        why="Not a number is like any other: nothing is shown of the real loss.",
        runs=(Step,),
        plant=losses(lambda model, batch: losses_of(model, batch) * float("nan")),
        found_by={Tool.CHECK: r"substance: the loss: is not finite"},
        probes=frozenset({"substance"}),
    ),
    Plant(
        name="batches of the same unit, whichever is asked for",
        why="A neighbouring batch is then the same batch, and a check of it proves nothing.",
        runs=(Step,),
        plant=batches(always_the_first),
        found_by={Tool.CHECK: r"substance: the batches: nothing changes"},
        probes=frozenset({"substance"}),
    ),
    Plant(
        name="batches that are drawn anew each time",
        why="What is compared is then chance, frozen for the check only.",
        runs=(Step,),
        plant=batches(never_the_same),
        found_by={Tool.CHECK: r"substance: the batches: another batch"},
        probes=frozenset({"substance"}),
    ),
)
