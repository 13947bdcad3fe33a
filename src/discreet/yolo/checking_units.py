"""A probe of units that are groups: whole, no larger than is said, and each chosen alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from discreet.checking import Finding
from discreet.units import PrivacyUnits

if TYPE_CHECKING:
    from discreet.yolo.train import PrivateDetectionTrainer

_UNITS = 8
_SALTS = (b"one step", b"another step")  # made up: what is chosen in them is not what a run reads


def units(trainer: PrivateDetectionTrainer) -> Finding:
    """What is chosen of drawn units, with the first unit removed from the data set.

    Its outcome says nothing about what is in an image.
    """
    whole = trainer.units
    numbers = range(min(_UNITS, len(whole)))
    finding = Finding(
        probe="units",
        compared="the images read of each drawn unit, with the first unit removed",
        verdict="passed",
    )
    images = [image for unit in whole.members[1 : len(numbers)] for image in unit]
    place = {image: i for i, image in enumerate(images)}
    rest = PrivacyUnits(
        members=tuple(tuple(place[i] for i in unit) for unit in whole.members[1 : len(numbers)]),
        digests=[whole.digests[image] for image in images],
        max_images=whole.max_images,
    )
    what = ""
    for salt in _SALTS:
        for unit in numbers:
            chosen = whole.choose(unit, salt)
            if len(chosen) > whole.max_images or not set(chosen) <= set(whole.members[unit]):
                what = "a step reads more of a unit than it may, or images of another"
            elif unit and [place[i] for i in chosen] != list(rest.choose(unit - 1, salt)):
                what = "what is read of one unit depends on which others there are"
    if not what:
        return finding
    return replace(
        finding,
        verdict="failed",
        where=("the choice of images",),
        what=what,
        do="choose by the step's salt and the unit's own images, and nothing else",
    )
