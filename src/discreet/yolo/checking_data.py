"""Probes of the trainer's data: each image arrives alone, whole, and whoever else is there.

All comparisons are bit for bit, and their outcome says nothing about what is in an image.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from discreet.checking import Finding
from discreet.data import ImageRecord
from discreet.randomness import RandomSource, make_source
from discreet.yolo import loop
from discreet.yolo.batches import OF_IMAGES, OF_OBJECTS
from discreet.yolo.images import TaskImages

if TYPE_CHECKING:
    from discreet.yolo.train import PrivateDetectionTrainer

_RECORDS = 4
_STEPS = (1, 2)
# Standard deviations by which a sampler's statistics may be off: 1e-9 where they are normal,
# still below 1e-6 in their longer tails.
_SIGMAS = 8.0
_DRAWS, _MANY_DRAWS, _BITS = 400, 4000, 20_000_000


def probes(trainer: PrivateDetectionTrainer, *, full: bool) -> Mapping[str, Callable[[], Finding]]:
    """The probes of the data path, by name."""
    found: dict[str, Callable[[], Finding]] = {
        "augmentation": lambda: augmentation(trainer, full=full),
        "access": lambda: access(trainer, full=full),
        "loader": lambda: loader(trainer),
    }
    return found | ({"sampler": lambda: sampler(trainer)} if full else {})


def dataset_of(trainer: PrivateDetectionTrainer, records: Sequence[ImageRecord]) -> TaskImages:
    """The trainer's own training data set, over these images only."""
    other = copy.copy(trainer)
    other.dataset = dataclasses.replace(trainer.dataset, train=tuple(records))
    return other.build_dataset(mode="train")


def source_of(trainer: PrivateDetectionTrainer) -> RandomSource:
    """The run's random source; a seeded one anew, so that the run draws what it would have."""
    if trainer.source.secure:
        return trainer.source
    return make_source(trainer.prepared.privacy.insecure_seed)


class RealBatches:
    """Batches of the user's images through the trainer's loader.

    Args:
        trainer: The trainer.
        numbers: Images to use.
    """

    def __init__(self, trainer: PrivateDetectionTrainer, numbers: Sequence[int]) -> None:
        self._place = {number: place for place, number in enumerate(numbers)}
        self._dataset = dataset_of(trainer, [trainer.dataset.train[i] for i in numbers])

    def __call__(self, numbers: Sequence[int]) -> dict[str, Any]:
        """The batch of these images, in this order, augmented as in the first step."""
        places = [self._place[number] for number in numbers]
        loaded = load(self._dataset, [places], size=len(numbers))
        return next(loaded.next_step())


def augmentation(trainer: PrivateDetectionTrainer, *, full: bool) -> Finding:
    """Images as they arrive, with the first image of the data set removed."""
    records = trainer.dataset.train[: 12 if full else _RECORDS]
    compared = "every image as it arrives, with the first image removed from the data set"
    if len(records) < 2:
        return _not_run("augmentation", compared)
    whole, rest = dataset_of(trainer, records), dataset_of(trainer, records[1:])
    for step in range(1, 6) if full else _STEPS:
        for place in range(len(records) - 1):
            if not same_item(whole[(step, place + 1)], rest[(step, place)]):
                return Finding(
                    probe="augmentation",
                    compared=compared,
                    verdict="failed",
                    where=("the augmentation",),
                    what="what is done to one image depends on which others are in the data set",
                    do="seed it by the step and the image's content, not by its place",
                )
    return Finding(probe="augmentation", compared=compared, verdict="passed")


def access(trainer: PrivateDetectionTrainer, *, full: bool) -> Finding:
    """Images as they arrive, with no other image in the data set."""
    records = trainer.dataset.train[: 12 if full else _RECORDS]
    compared = "every image as it arrives, with all others removed from the data set"
    if len(records) < 2:
        return _not_run("access", compared)
    whole = dataset_of(trainer, records)
    for place, record in enumerate(records):
        alone = dataset_of(trainer, [record])
        for step in range(1, 6) if full else _STEPS:
            try:
                same = same_item(whole[(step, place)], alone[(step, 0)])
            except (IndexError, ValueError):  # it looks for others, and there are none
                same = False
            if not same:
                return Finding(
                    probe="access",
                    compared=compared,
                    verdict="failed",
                    where=("the data set",),
                    what="an image arrives with pixels or labels of another one",
                    do="load one image per index; no mosaic, mixup, cutmix or copy-paste",
                )
    return Finding(probe="access", compared=compared, verdict="passed")


def loader(trainer: PrivateDetectionTrainer) -> Finding:
    """What was drawn and what arrives, for draws of all sizes, the empty one included."""
    compared = "the drawn images with those that arrive, for empty and other draws"
    records = trainer.dataset.train[:_RECORDS]
    dataset = dataset_of(trainer, records)
    everything = list(range(len(records)))
    draws: list[Sequence[int]] = [[], everything, [], everything[:1], everything[1:], []]
    loaded = load(dataset, draws, size=2)
    side = int(trainer.args.imgsz)
    what = ""
    for step, draw in enumerate(draws, start=1):
        try:
            parts = list(loaded.next_step())
        except (StopIteration, IndexError, RuntimeError):
            what = "a step that was drawn never arrives: its draw was empty"
            break
        images = torch.cat([part["img"] for part in parts]) if parts else torch.empty(0)
        expected = [dataset[(step, i)]["img"] for i in draw]
        if len(images) != len(draw) or any(
            not torch.equal(image, other) for image, other in zip(images, expected, strict=False)
        ):
            what = "a step gets other images than were drawn for it"
        elif len(images) and tuple(images.shape[1:]) != (3, side, side):
            what = "images arrive in a size that depends on what they show"
        if what:
            break
    if not what:
        return Finding(probe="loader", compared=compared, verdict="passed")
    return Finding(
        probe="loader",
        compared=compared,
        verdict="failed",
        where=("the loader",),
        what=what,
        do="give every step exactly its draw, also none; one public image size",
    )


def sampler(trainer: PrivateDetectionTrainer) -> Finding:
    """Draws of the run's sampler, and independent ones at the accounted rate."""
    mechanism = trainer.plan.mechanism
    rate, population = mechanism.sample_rate, mechanism.population
    compared = "batch sizes and how often each unit is drawn, with independent draws at rate q"
    if rate == 1:
        return _not_run("sampler", compared, "every unit is in every step")
    if mechanism.sampling != "poisson":
        return _not_run("sampler", compared, f"draws are {mechanism.sampling}, and accounted so")
    drawn = mechanism.make_sampler()
    draws = max(_DRAWS, min(_BITS // population, max(_MANY_DRAWS, math.ceil(50 / rate))))
    counts = np.zeros(population)
    sizes, shared = np.zeros(draws), np.zeros(draws)
    last = np.empty(0, dtype=np.int64)
    source = source_of(trainer)
    for i in range(draws):
        draw = drawn.draw(source.stream())
        sizes[i] = len(draw)
        shared[i] = len(np.intersect1d(draw, last, assume_unique=True))
        np.add.at(counts, draw, 1)
        last = draw
    trials = draws * population
    mean = (counts.sum() - trials * rate) / math.sqrt(trials * rate * (1 - rate))
    found = {
        "the rate is not the accounted one": abs(float(mean)),
        "batch sizes do not vary as those of independent draws": _spread(sizes, population, rate),
        "some units are drawn more often than others": _spread(counts, draws, rate),
        "units are drawn again in the next step": _memory(sizes, shared, population, rate),
    }
    what, worst = max(found.items(), key=lambda item: item[1])
    finding = Finding(
        probe="sampler", compared=compared, verdict="passed", deviation=worst, limit=_SIGMAS
    )
    if worst <= _SIGMAS:
        return finding
    return dataclasses.replace(
        finding,
        verdict="failed",
        where=("the sampler",),
        what=what,
        do="draw every unit by itself with probability q; shuffling is not Poisson sampling",
    )


def _spread(counts: np.ndarray, trials: int, rate: float) -> float:
    """How far the variance of binomial counts is from the true one, in standard deviations.

    The squared deviation of a binomial number, in units of its variance v = N q (1 − q), has
    mean 1 and variance 2 + (1 − 6 q (1 − q)) / v.
    """
    pq = rate * (1 - rate)
    squares = (counts - trials * rate) ** 2 / (trials * pq)
    deviation = math.sqrt((2 + (1 - 6 * pq) / (trials * pq)) / len(counts))
    return abs(float(squares.mean()) - 1) / deviation


def _memory(sizes: np.ndarray, shared: np.ndarray, population: int, rate: float) -> float:
    """Correlation of draws that follow each other, in standard deviations.

    With x and y the indicators of two draws, Σ (x − q)(y − q) over units is the number of shared
    units − q (|x| + |y|) + n q², of mean 0 and variance n (q (1 − q))² where draws are independent.
    """
    products = shared[1:] - rate * (sizes[1:] + sizes[:-1]) + population * rate**2
    deviation = rate * (1 - rate) * math.sqrt(population * len(products))
    return abs(float(products.sum())) / deviation


def load(
    dataset: TaskImages,
    draws: Sequence[Sequence[int | Sequence[int]]],
    *,
    size: int,
    views: int = 1,
) -> Any:
    """The parts of these draws, by the trainer's own loader."""
    return loop.MicroBatches(  # as the trainer's loop knows it
        dataset, iter(draws), first_step=1, micro_batch_size=size, workers=0, views=views
    )


def same_item(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two images with their labels are the same, bit for bit."""
    keys = [key for key in (*OF_IMAGES, *OF_OBJECTS) if key in one]
    return all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in keys)


def _not_run(probe: str, compared: str, why: str = "there is one image") -> Finding:
    return Finding(probe=probe, compared=compared, verdict="not run", what=why)
