"""Probe of what is kept of an image: it comes back for that image in that state, and unchanged.

The step itself is tried without anything kept, so that a frozen layer that mixes images is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from discreet.checking import Finding
from discreet.checking.held import relative
from discreet.yolo import feature_cache, loop
from discreet.yolo.batches import images_of, joined
from discreet.yolo.checking_data import dataset_of, same_item
from discreet.yolo.dataset import Index, Key
from discreet.yolo.microbatch import images_in

if TYPE_CHECKING:
    from discreet.yolo.train import PrivateDetectionTrainer

Item = dict[str, Any]
_RECORDS = 4
_LIMIT = 1e-4  # batches of another size run other kernels
_COMPARED = "features and labels that come back with those that the image alone would give"
# Steps change every image's state; the third and the fourth find all of them known. Parts are
# whole: what a loader does with others is for its own probe.
_DRAWS, _PART = ([0, 1, 2, 3], [3, 1, 0, 2], [3, 1], [2, 0]), 2


def probes(
    trainer: PrivateDetectionTrainer, stand_ins: Mapping[str, Any], *, full: bool
) -> Mapping[str, Callable[[], Finding]]:
    """The probe, if the run keeps features.

    Args:
        trainer: The trainer.
        stand_ins: A batch of four made-up images, as from the loader.
        full: Look at more images and steps.
    """
    dataset = dataset_of(trainer, trainer.dataset.train[:1])
    gib = trainer.prepared.performance.feature_cache
    if feature_cache.cache_for(trainer.front, dataset, gib=gib) is None:
        return {}
    return {"features": lambda: features(trainer, stand_ins, full=full)}


def features(
    trainer: PrivateDetectionTrainer, stand_ins: Mapping[str, Any], *, full: bool
) -> Finding:
    """Images that have one key, and what is kept of made-up images."""
    worst = _deviation(trainer, _StandIns(stand_ins))
    what = ""
    if not _keys_are_sound(trainer, full=full):
        what = "what is kept of one image in one state would be taken for another"
    elif worst > _LIMIT:
        what = "what comes back is not what the image alone would give"
    return Finding(
        probe="features",
        compared=_COMPARED,
        verdict="failed" if what else "passed",
        deviation=worst,
        limit=_LIMIT,
        where=("the feature cache",) if what else (),
        what=what,
        do="find features by the image's content and its flips, and keep a copy" if what else "",
    )


def _keys_are_sound(trainer: PrivateDetectionTrainer, *, full: bool) -> bool:
    """Whether items with one key are the same, bit for bit, whoever else is there."""
    records = trainer.dataset.train[: 12 if full else _RECORDS]
    known: dict[Key, Item] = {}
    for dataset in (dataset_of(trainer, records), dataset_of(trainer, records[1:])):
        for step in range(1, 6 if full else 4):
            for place in range(len(dataset)):
                key, item = dataset.key((step, place)), dataset[(step, place)]
                if key is None or not same_item(known.setdefault(key, item), item):
                    return False
    return True


def _deviation(trainer: PrivateDetectionTrainer, images: _StandIns) -> float:
    """Largest relative deviation of features; infinite if labels or images are others."""
    cache = feature_cache.FeatureCache(limit=1 << 30, entries=2 * _RECORDS)
    views = trainer.prepared.views
    parts = loop.MicroBatches(  # as the trainer's loop knows it
        cast(Any, images),
        iter(_DRAWS),
        first_step=1,
        micro_batch_size=_PART * views,
        views=views,
        cache=cache,
    )
    worst = 0.0
    for step, draw in enumerate(_DRAWS, start=1):
        came: list[Item] = []
        sizes: list[int] = []
        for part in parts.next_step():
            sizes += part.get("unit_sizes", [1] * images_in(part))
            came += _one_by_one(trainer, part, cache)
        if sizes != [views] * len(draw):  # an image's views are one unit, known or not
            return float("inf")
        for mine, image in zip(came, [i for i in draw for _ in range(views)], strict=True):
            part = images[(step, image, 0)]
            (alone,) = _one_by_one(trainer, part, None)
            if not same_item(mine, alone):
                return float("inf")
            pairs = zip(mine["features"], alone["features"], strict=True)
            worst = max(worst, *(relative(one.float(), two.float()) for one, two in pairs))
    return worst


def _one_by_one(
    trainer: PrivateDetectionTrainer,
    part: dict[str, Any],
    cache: feature_cache.FeatureCache | None,
) -> Iterator[Item]:
    """Features and labels of each image of a part, by the run's own way."""
    if "img" in part:
        part = trainer.preprocess_batch(dict(part))
    found = feature_cache.features_of(part, trainer.front, cache)
    for row in range(images_in(part)):
        labels = {k: v for k, v in images_of(part, row, row + 1).items() if k != "img"}
        yield labels | {"features": tuple(feature[row].clone() for feature in found)}
    for feature in found:
        feature.zero_()  # whoever writes into what came back must not reach what is kept


class _StandIns:
    """Made-up images as a data set, of which every other step shows the mirror image."""

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self._batch = batch

    def key(self, index: Index) -> Key:
        """See `RecordDataset.key`."""
        step, image = index[:2]
        return f"stand-in {image}".encode(), (step + image) % 2

    def __getitem__(self, index: Index) -> Item:
        """See `RecordDataset`."""
        image, (_, flipped) = index[1], self.key(index)
        item = images_of(self._batch, image, image + 1)
        if flipped:
            boxes = item["bboxes"].clone()
            boxes[:, 0] = 1 - boxes[:, 0]
            item |= {"img": item["img"].flip(-1), "bboxes": boxes}
        return item

    collate_fn = staticmethod(joined)
