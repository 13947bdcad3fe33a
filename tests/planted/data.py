"""Mistakes on the way of an image: who is drawn, what is loaded, what arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ultralytics.data.dataset import YOLODataset

from discreet.sampling import PoissonSampler
from discreet.yolo import loop
from discreet.yolo.dataset import RecordDataset
from discreet.yolo.feature_cache import FeatureCache
from discreet.yolo.loading import MicroBatches

from .plant import Plant, Tool
from .runs import Training

Patch = pytest.MonkeyPatch
Draw = Callable[[PoissonSampler, np.random.Generator], np.ndarray]
_own_draw = PoissonSampler.draw


def drawing(draw: Draw) -> Any:
    def plant(patch: Patch, run: Any) -> None:
        patch.setattr(PoissonSampler, "draw", draw)

    return plant


def a_part_of_a_permutation(self: PoissonSampler, stream: np.random.Generator) -> np.ndarray:
    size = round(self.population * self.sample_rate)
    return np.sort(stream.permutation(self.population)[:size])


def with_a_favourite(self: PoissonSampler, stream: np.random.Generator) -> np.ndarray:
    return np.union1d(_own_draw(self, stream), [3])


def a_tenth_more(self: PoissonSampler, stream: np.random.Generator) -> np.ndarray:
    rate = min(1.0, self.sample_rate * 1.1)
    return _own_draw(PoissonSampler(population=self.population, sample_rate=rate), stream)


def twice_each(patch: Patch, run: Any) -> None:
    """Each draw serves two steps, to save loading."""
    kept: list[np.ndarray] = []

    def draw(self: PoissonSampler, stream: np.random.Generator) -> np.ndarray:
        if not kept:
            kept.append(_own_draw(self, stream))
            return kept[0]
        return kept.pop()

    patch.setattr(PoissonSampler, "draw", draw)


# ---- images ----


def seeded_by_place(patch: Patch, run: Training) -> None:
    def init(own: Any, self: Any, records: Any, settings: Any) -> None:
        own(self, records, settings)
        if len(records) > 1:  # alone, an image keeps the stream that it has among others
            self._identity = {str(record.image): i for i, record in enumerate(records)}

    wrap_method(patch, RecordDataset, "__init__", init)


def blended(patch: Patch, run: Training) -> None:
    def load_image(own: Any, self: Any, i: int, *args: Any, **kwargs: Any) -> Any:
        image, shape, new = own(self, i, *args, **kwargs)
        other, _, _ = own(self, self.ni - 1)
        height, width = min(len(image), len(other)), min(image.shape[1], other.shape[1])
        image[:height, :width] = image[:height, :width] // 2 + other[:height, :width] // 2
        return image, shape, new

    wrap_method(patch, RecordDataset, "load_image", load_image)


def stock_mosaic(patch: Patch, run: Training) -> None:
    """Ultralytics' own transforms: mosaic is on unless somebody takes it out."""

    def build_transforms(self: Any, hyp: Any) -> Any:
        hyp.mosaic = 1.0
        self.buffer = list(range(self.ni))
        return YOLODataset.build_transforms(self, hyp)

    patch.setattr(RecordDataset, "build_transforms", build_transforms)


def wrap_method(patch: Patch, owner: type, name: str, around: Callable[..., Any]) -> None:
    own = getattr(owner, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(own, self, *args, **kwargs)

    patch.setattr(owner, name, method)


def loading(kind: type[MicroBatches]) -> Any:
    def plant(patch: Patch, run: Training) -> None:
        patch.setattr(loop, "MicroBatches", kind)

    return plant


class WithoutEmpty(MicroBatches):
    """An empty batch cannot be collated, so it is left out."""

    def _parts(self, draws: Any, first_step: int) -> Any:
        return super()._parts((draw for draw in draws if len(draw)), first_step)


class WithoutRest(MicroBatches):
    """`drop_last=True`."""

    def _parts(self, draws: Any, first_step: int) -> Any:
        whole = (draw[: len(draw) // self._size * self._size] for draw in draws)
        return super()._parts(whole, first_step)


# ---- what is kept of them ----


def kept_in_another_order(patch: Patch, run: Training) -> None:
    def keep(own: Any, self: Any, keys: Any, features: Any, batch: Any) -> None:
        own(self, sorted(keys, reverse=True), features, batch)

    wrap_method(patch, FeatureCache, "keep", keep)


def kept_by_content_alone(patch: Patch, run: Training) -> None:
    def stateless(keys: Any) -> list[Any]:
        return [(digest, 0) for digest, _ in keys]

    def contains(own: Any, self: Any, key: Any) -> bool:
        return own(self, stateless([key])[0])

    def part(own: Any, self: Any, keys: Any) -> Any:
        return own(self, stateless(keys))

    def keep(own: Any, self: Any, keys: Any, features: Any, batch: Any) -> None:
        own(self, stateless(keys), features, batch)

    wrap_method(patch, FeatureCache, "__contains__", contains)
    wrap_method(patch, FeatureCache, "part", part)
    wrap_method(patch, FeatureCache, "keep", keep)


def known_by_place(patch: Patch, run: Training) -> None:
    def key(own: Any, self: Any, index: Any) -> Any:
        found = own(self, index)
        return found and (bytes([index[1] % 256]), found[1])

    wrap_method(patch, RecordDataset, "key", key)


PLANTS = (
    Plant(
        name="shuffle accounted as Poisson",
        why="A part of a permutation has a fixed size and is amplified less, or not at all.",
        runs=(Training,),
        plant=drawing(a_part_of_a_permutation),
        found_by={Tool.STATISTICS: "sampler: the sampler"},
        probes=frozenset({"sampler"}),
    ),
    Plant(
        name="one image in every step",
        why="A unit that is always drawn has no amplification.",
        runs=(Training,),
        plant=drawing(with_a_favourite),
        found_by={Tool.STATISTICS: "sampler: the sampler"},
        probes=frozenset({"sampler"}),
    ),
    Plant(
        name="draws at a higher rate than accounted",
        why="q is taken from another number of images than is drawn from.",
        runs=(Training,),
        plant=drawing(a_tenth_more),
        found_by={Tool.STATISTICS: "sampler: the sampler"},
        probes=frozenset({"sampler"}),
    ),
    Plant(
        name="one draw for two steps",
        why="Steps that share their draw are not independent, and amplify less.",
        runs=(Training,),
        plant=twice_each,
        found_by={Tool.STATISTICS: "sampler: the sampler: .*next step"},
        probes=frozenset({"sampler"}),
    ),
    Plant(
        name="augmentation seeded by place",
        why="Removing one image moves all that follow, and with them their augmentation.",
        runs=(Training,),
        plant=seeded_by_place,
        found_by={Tool.CHECK: "augmentation: the augmentation"},
        probes=frozenset({"augmentation"}),
    ),
    Plant(
        name="an image blended into others",
        why="Its pixels are in gradients that are not clipped together with its own.",
        runs=(Training,),
        plant=blended,
        found_by={Tool.CHECK: "access: the data set"},
        probes=frozenset({"access"}),
    ),
    Plant(
        name="mosaic across images, in the code",
        why="Ultralytics' own transforms paste four images into one.",
        runs=(Training,),
        plant=stock_mosaic,
        found_by={Tool.CHECK: "access: the data set"},
    ),
    Plant(
        name="empty batches skipped by the loader",
        why="A step for which nobody was drawn never comes: fewer steps tell of it.",
        runs=(Training,),
        plant=loading(WithoutEmpty),
        found_by={Tool.CHECK: "loader: the loader"},
        probes=frozenset({"loader"}),
    ),
    Plant(
        name="incomplete micro-batches dropped",
        why="Who is in the sum depends on how many others were drawn.",
        runs=(Training,),
        plant=loading(WithoutRest),
        found_by={Tool.CHECK: "loader: the loader"},
        probes=frozenset({"loader"}),
    ),
    Plant(
        name="features kept under another image's key",
        why="One image comes back as another, drawn or not, and is clipped and counted as that.",
        runs=(Training,),
        plant=kept_in_another_order,
        found_by={Tool.CHECK: "features: the feature cache: .*alone"},
        probes=frozenset({"features"}),
    ),
    Plant(
        name="features known by place",
        why="With one image removed, all that follow would find what was kept of others.",
        runs=(Training,),
        plant=known_by_place,
        found_by={Tool.CHECK: "features: the feature cache: .*taken for another"},
        probes=frozenset({"features"}),
    ),
    Plant(
        name="features kept without the flip",
        why="The boxes of an image are looked for in its mirror image.",
        runs=(Training,),
        plant=kept_by_content_alone,
        found_by={Tool.CHECK: "features: the feature cache"},
        probes=frozenset({"features"}),
    ),
)
