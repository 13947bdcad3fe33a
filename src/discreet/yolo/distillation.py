"""What a teacher adds to the loss of one image, inside the gradient that is clipped.

The teacher sees the augmented image that the student sees, one at a time as far as its layers
know, and the student is drawn to what it says, where the two can be compared without a new
parameter:

    class      Σ over anchors and shared class names of BCE(student, p), p the teacher's score,
               over max(Σ p, 1) of the same image, times the gain `cls`
    box        Σ over anchors where the teacher is sure of w · KL(teacher ‖ student) of the four
               distance distributions, or of w · (1 - CIoU) where a head has none, over
               max(Σ w, 1) of the same image, times `dfl` or `box`; w is the teacher's best score
    features   mean over levels of ‖a(student) - a(teacher)‖², a being the mean square over the
               channels at each place, as a vector of length 1 (attention transfer, Zagoruyko and
               Komodakis 2017): any number of channels has one

Every term of image i holds numbers of image i only. Levels are matched by stride, classes by name.
B is the number of images, A of anchors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Detect
from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.tal import dist2bbox, make_anchors

from discreet.errors import ModelError
from discreet.statement.schema import TeacherTerm
from discreet.yolo.loss import Batch, PerImageLoss

_SURE = 0.25  # score from which a place is one where the teacher knows of an object
TERMS: tuple[TeacherTerm, ...] = ("teacher's classes", "teacher's boxes", "teacher's features")


@dataclass(frozen=True, kw_only=True)
class Match:
    """What of two detectors can be compared.

    Attributes:
        levels: Pairs of levels with equal stride, the student's and the teacher's.
        classes: Pairs of classes with equal name, the student's and the teacher's.
        distributions: Whether both heads give distances as distributions of one length.
    """

    levels: tuple[tuple[int, int], ...]
    classes: tuple[tuple[int, int], ...]
    distributions: bool

    @classmethod
    def of(cls, student: nn.Module, teacher: nn.Module) -> Match:
        """Compare the heads.

        Raises:
            ModelError: One of them is of another kind, or they have no level in common.
        """
        heads = [cast(Any, model).model[-1] for model in (student, teacher)]
        if not all(isinstance(head, Detect) for head in heads):
            raise ModelError(
                "student and teacher must have YOLO heads to be compared",
                where="teacher",
                do="use YOLO detection models for both",
            )
        mine, theirs = ([float(stride) for stride in head.stride] for head in heads)
        levels = [(i, theirs.index(stride)) for i, stride in enumerate(mine) if stride in theirs]
        if not levels:
            raise ModelError(
                f"no level of the teacher (strides {theirs}) is one of the student's ({mine})",
                where="teacher",
                do="use a teacher of the same family of architectures",
            )
        known = {_plain(name): number for number, name in cast(Any, teacher).names.items()}
        return cls(
            levels=tuple(levels),
            classes=tuple(
                (number, known[_plain(name)])
                for number, name in cast(Any, student).names.items()
                if _plain(name) in known
            ),
            distributions=heads[0].reg_max == heads[1].reg_max > 1,
        )

    @property
    def terms(self) -> tuple[TeacherTerm, ...]:
        """The loss terms that it allows."""
        return TERMS if self.classes else TERMS[1:]


def _plain(name: str) -> str:
    return str(name).strip().lower()


class FrozenTeacher:
    """A teacher that says what it sees in each image, and is changed by nothing.

    Args:
        model: A detection model.
        device: Where to run it.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model = freeze(model.to(device))

    def __call__(self, images: Tensor) -> dict[str, Any]:
        """Boxes, scores and feature maps of its one-to-many head; images are (B, 3, H, W)."""
        with torch.no_grad():
            return one_to_many(self.model(images))


def freeze(model: nn.Module) -> nn.Module:
    """The model in evaluation mode: its normalisations use the statistics that it came with."""
    return model.eval().requires_grad_(False)


def one_to_many(predictions: Any) -> dict[str, Any]:
    """What the head's dense branch says, in either mode."""
    if isinstance(predictions, tuple):  # in evaluation mode, detections come first
        predictions = cast(tuple[Any, ...], predictions)[1]
    return predictions.get("one2many", predictions)


class DistilledLoss:
    """Loss of each image: what its labels say, and what the teacher says.

    Args:
        labels: The loss by labels.
        student: The model that trains, on its device, with its gains in `args`.
        teacher: The public, or private and paid for, model.
        gain: Weight of the teacher's terms; 1 if None.

    Attributes:
        names: What the terms are called, in order: those of the labels first.
        match: What is compared.
        gain: Weight of the teacher's terms.
    """

    def __init__(
        self, labels: PerImageLoss, student: nn.Module, teacher: nn.Module, *, gain: float | None
    ) -> None:
        self._labels = labels
        self.match = Match.of(student, teacher)
        self._teacher = FrozenTeacher(teacher, next(student.parameters()).device)
        self._heads = [cast(Any, model).model[-1] for model in (student, teacher)]
        self._gains = cast(Any, student).args
        self.gain = 1.0 if gain is None else gain
        self.names = (*labels.names, *self.match.terms)

    def __call__(self, predictions: Any, batch: Batch) -> Tensor:
        """Loss terms of each image, (B, T); their sum over terms is the image's loss."""
        terms = self._labels(predictions, batch)
        return torch.cat([terms, self._taught(one_to_many(predictions), batch["img"])], 1)

    def _taught(self, student: Mapping[str, Any], images: Tensor) -> Tensor:
        """The teacher's terms, (B, 2 or 3)."""
        teacher = self._teacher(images)
        mine, theirs = (
            _Levels(said, head, [pair[side] for pair in self.match.levels])
            for side, (said, head) in enumerate(zip((student, teacher), self._heads, strict=True))
        )
        terms = [
            self._boxes(mine, theirs),
            _attention_distance(mine.features, theirs.features),
        ]
        if self.match.classes:
            terms.insert(0, self._classes(mine.scores, theirs.scores))
        return self.gain * torch.stack(terms, 1)

    def _classes(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """(B,) from logits (B, A, classes) of both."""
        own, others = ([pair[side] for pair in self.match.classes] for side in (0, 1))
        target = theirs[..., others].sigmoid()
        terms = F.binary_cross_entropy_with_logits(mine[..., own], target, reduction="none")
        return self._gains.cls * terms.sum((1, 2)) / target.sum((1, 2)).clamp(min=1)

    def _boxes(self, mine: _Levels, theirs: _Levels) -> Tensor:
        """(B,) from where the teacher is sure."""
        weight = theirs.scores.sigmoid().amax(-1)  # (B, A)
        weight = torch.where(weight >= _SURE, weight, 0.0)
        if self.match.distributions:
            terms, gain = _divergence(mine.distances, theirs.distances), self._gains.dfl
        else:
            overlap = bbox_iou(mine.boxes(), theirs.boxes(), xywh=False, CIoU=True).squeeze(-1)
            terms, gain = 1.0 - overlap, self._gains.box
        return gain * (terms * weight).sum(1) / weight.sum(1).clamp(min=1)


class _Levels:
    """What a head says on some of its levels, one behind the other.

    Attributes:
        distances: Raw distances, (B, A, 4, reg_max).
        scores: Logits, (B, A, classes).
        features: Inputs of the head, (B, C, H, W) each.
    """

    def __init__(self, said: Mapping[str, Any], head: Any, levels: list[int]) -> None:
        maps = cast("list[Tensor]", said["feats"])
        ends = [0]
        for part in maps:
            ends.append(ends[-1] + part.shape[-2] * part.shape[-1])
        spans = list(pairwise(ends))

        def chosen(values: Tensor) -> Tensor:
            return torch.cat([values[..., slice(*spans[level])] for level in levels], -1).float()

        distances = chosen(said["boxes"]).permute(0, 2, 1)
        self.distances = distances.unflatten(-1, (4, head.reg_max))
        self.scores = chosen(said["scores"]).permute(0, 2, 1)
        self.features = [maps[level].float() for level in levels]
        self._strides = head.stride[levels]

    def boxes(self) -> Tensor:
        """Boxes (B, A, 4) as corners in units of the level's stride."""
        anchors, _ = make_anchors(cast(Any, self.features), self._strides, 0.5)
        reg_max = self.distances.shape[-1]
        places = torch.arange(reg_max, device=anchors.device, dtype=anchors.dtype)
        distances = self.distances.softmax(-1) @ places if reg_max > 1 else self.distances[..., 0]
        return dist2bbox(distances, anchors, xywh=False)


def _divergence(mine: Tensor, theirs: Tensor) -> Tensor:
    """KL(teacher ‖ student), mean over the four sides; (B, A) from logits (B, A, 4, reg_max)."""
    target = theirs.log_softmax(-1)
    terms = F.kl_div(mine.log_softmax(-1), target, reduction="none", log_target=True)
    return terms.sum(-1).mean(-1)


def _attention_distance(mine: list[Tensor], theirs: list[Tensor]) -> Tensor:
    """(B,) from feature maps of equal sizes, level by level."""
    pairs = zip(_attention(mine), _attention(theirs), strict=True)
    return torch.stack([(one - other).square().sum(1) for one, other in pairs]).mean(0)


def _attention(maps: list[Tensor]) -> Iterator[Tensor]:
    for part in maps:
        yield F.normalize(part.square().mean(1).flatten(1), dim=1)
