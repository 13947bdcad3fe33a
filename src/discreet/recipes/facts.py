"""The public numbers that a rule may look at, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from discreet.errors import ConfigurationError

# A pass takes zoom² times the work: beyond this nobody waits for it.
LARGEST_ZOOM = 16
_CELL = 32


@dataclass(frozen=True, kw_only=True)
class PublicFacts:
    """What is known before an image is opened. All of it is published with the claim.

    Attributes:
        population: Number of privacy units n: of training images, or of groups of them.
        canaries: How many of them an audit has added, which teach nothing.
        pretrained: Whether the run starts from public weights.
        imgsz: Side of the images in pixels.
        classes: Number of classes that are learned; None where it is not known yet, as in a plan.
        epsilon: ε asked for; None where the noise was given.
        delta: δ asked for; None where it follows from n.
        trainable: Parts that train, as asked or as chosen by the first rule.
        zoom: How many times the model enlarges images, as asked or as chosen by the rule before.
        views: Views of an image whose gradients are averaged, as asked or as chosen before.
        steps: Number of steps, if it was asked for.
        batch: Expected batch size, if it was asked for.
        images_in_time: Images that all steps may read in the time allowed, a view of one being one;
            None where time is not limited.
        trained_at: Side in pixels of the images that the weights have learned from; None where
            they do not tell.
        task: What is trained, by Ultralytics' name.
    """

    population: int
    pretrained: bool
    imgsz: int
    canaries: int = 0
    classes: int | None = None
    epsilon: float | None = None
    delta: float | None = None
    trainable: str | None = None
    zoom: int = 1
    views: int = 1
    steps: int | None = None
    batch: int | None = None
    images_in_time: float | None = None
    trained_at: int | None = None
    task: str = "detect"

    @property
    def units_of_data(self) -> int:
        """Units that there is something to learn from."""
        return self.population - self.canaries


def classes_learned(number: int, settings: Mapping[str, Any]) -> int:
    """How many of a data set's classes a run learns, by `single_cls` and `classes`.

    Args:
        number: Number of classes of the data set.
        settings: Ultralytics' own arguments.

    Raises:
        ConfigurationError: `classes` has a number that no class has.
    """
    single = bool(settings.get("single_cls"))
    number = 1 if single else number
    chosen = frozenset(settings.get("classes") or range(number))
    if unknown := [each for each in sorted(chosen) if each >= number]:
        why = "single_cls makes all of them class 0" if single else f"the data set has {number}"
        raise ConfigurationError(
            f"there is no class {unknown[0]}: {why}",
            where="classes",
            do=f"use numbers from 0 to {number - 1}",
        )
    return len(chosen)


def whole_cells(imgsz: int) -> int:
    """The side in pixels that images of this side get: whole cells of the coarsest feature map."""
    return math.ceil(imgsz / _CELL) * _CELL
