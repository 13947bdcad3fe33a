"""A probe of units of several images or views: whole, no larger than is said, each chosen alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from discreet.checking import Finding
from discreet.units import PrivacyUnits
from discreet.yolo import checking_data

if TYPE_CHECKING:
    from discreet.yolo.train import PrivateDetectionTrainer

_UNITS, _LOADED = 8, 2
_SALTS = (b"one step", b"another step")  # made up: what is chosen in them is not what a run reads


def probes(trainer: PrivateDetectionTrainer) -> Mapping[str, Callable[[], Finding]]:
    """The probe, where a unit is more than one view of one image."""
    several = trainer.units.has_groups or trainer.prepared.views > 1
    return {"units": lambda: units(trainer)} if several else {}


def units(trainer: PrivateDetectionTrainer) -> Finding:
    """What is read of drawn units, with the first unit removed from the data set.

    Its outcome says nothing about what is in an image.
    """
    finding = Finding(
        probe="units",
        compared="the images read of each drawn unit, with the first unit removed",
        verdict="passed",
    )
    where, do = "the choice of images", "choose by the step's salt and the unit's images alone"
    what = _choice(trainer.units)
    if not what:
        where, do = "the loader", "keep the images of a unit in one part, with their number"
        what = _loading(trainer)
    if not what:
        return finding
    return replace(finding, verdict="failed", where=(where,), what=what, do=do)


def _choice(whole: PrivacyUnits) -> str:
    numbers = range(min(_UNITS, len(whole)))
    rest, place = _some_units(whole, range(1, len(numbers)))
    for salt in _SALTS:
        for unit in numbers:
            chosen = whole.choose(unit, salt)
            if len(chosen) > whole.max_images or not set(chosen) <= set(whole.members[unit]):
                return "a step reads more of a unit than it may, or images of another"
            if unit and [place[i] for i in chosen] != list(rest.choose(unit - 1, salt)):
                return "what is read of one unit depends on which others there are"
    return ""


def _loading(trainer: PrivateDetectionTrainer) -> str:
    whole = trainer.units
    by_size = sorted(range(len(whole)), key=lambda unit: -len(whole.members[unit]))
    some, place = _some_units(whole, dict.fromkeys([*by_size[:_LOADED], by_size[-1]]))
    records = [trainer.dataset.train[image] for image in place]
    draw = [some.choose(unit, _SALTS[0]) for unit in range(len(some))]
    dataset, views = checking_data.dataset_of(trainer, records), trainer.prepared.views
    drawn = [[(1, image, view) for image in unit for view in range(views)] for unit in draw]
    images = [dataset[index]["img"] for unit in drawn for index in unit]
    whole_units = [len(unit) for unit in drawn]
    for size in (1, sum(whole_units)):  # a part for each unit, and one for all of them
        loaded = checking_data.load(dataset, [draw], size=size, views=views)
        parts = list(loaded.next_step())
        sizes = [n for part in parts for n in part.get("unit_sizes", [1] * len(part["img"]))]
        if sizes != whole_units:
            return "a unit's images, or their views, are clipped apart"
        came = [image for part in parts for image in part["img"]]
        if not all(torch.equal(*pair) for pair in zip(came, images, strict=True)):
            return "what is clipped as one unit is of several"
    return ""


def _some_units(whole: PrivacyUnits, numbers: Iterable[int]) -> tuple[PrivacyUnits, dict[int, int]]:
    """Units by themselves, and the new number of each of their images."""
    numbers = list(numbers)
    images = [image for unit in numbers for image in whole.members[unit]]
    place = {image: i for i, image in enumerate(images)}
    members = tuple(tuple(place[image] for image in whole.members[unit]) for unit in numbers)
    digests = [whole.digests[image] for image in images]
    return PrivacyUnits(members=members, digests=digests, max_images=whole.max_images), place
