"""Mistakes in a torch model of the user's own, and in its loss and batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from discreet.checking import Unit

from .plant import Plant, Tool
from .runs import Step
from .small_step import Net, batch_of, losses_of

Patch = pytest.MonkeyPatch


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
