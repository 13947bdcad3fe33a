"""What is kept of an image comes back for that image and its flips, and changes no run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics.utils import DEFAULT_CFG

from discreet.api import train
from discreet.checking.held import relative
from discreet.data import load_dataset
from discreet.result import TrainingResult
from discreet.yolo import feature_cache
from discreet.yolo.dataset import ImageSettings, RecordDataset
from discreet.yolo.feature_cache import FeatureCache, cache_for, features_of
from discreet.yolo.frozen import FrozenFront
from discreet.yolo.loading import MicroBatches
from discreet.yolo.loop import StepLoop
from discreet.yolo.microbatch import halves, images_in

from .conftest import ARCHITECTURE, IMGSZ, make_model

pytestmark = pytest.mark.usefixtures("unchecked")

FIXED = {"hsv_h": 0, "hsv_s": 0, "hsv_v": 0, "translate": 0, "scale": 0}
GENEROUS = 1 << 30
DATA = {"names": dict(enumerate("abc")), "nc": 3, "channels": 3}


def dataset(scenes: Path, records: Sequence[Any] | None = None, **settings: Any) -> RecordDataset:
    hyp = SimpleNamespace(**{**vars(DEFAULT_CFG), **FIXED, "mosaic": 0, **settings})
    records = load_dataset(scenes).train if records is None else records
    return RecordDataset(
        records, ImageSettings(data=DATA, imgsz=IMGSZ, hyp=hyp, augment=True, seed=3)
    )


def front() -> FrozenFront:
    return FrozenFront(make_model(trainable="classes"))


def loaded(images: RecordDataset, draws: Sequence[Sequence[int]], **options: Any) -> MicroBatches:
    options = {"first_step": 1, "micro_batch_size": 4, **options}
    return MicroBatches(images, iter(draws), **options)


def run_through(part: dict[str, Any], made: FrozenFront, cache: FeatureCache | None) -> Any:
    if "img" in part:
        part["img"] = part["img"].float() / 255
    return features_of(part, made, cache)


# ---- flips ----


@pytest.mark.parametrize(("fliplr", "flipud", "states"), [(0.5, 0, 2), (0.5, 0.3, 4), (0, 1, 1)])
def test_an_image_has_a_state_for_each_flip(
    scenes: Path, fliplr: float, flipud: float, states: int
):
    images = dataset(scenes, fliplr=fliplr, flipud=flipud)
    assert images.flips is not None and images.flips.count == states
    keys = {images.key((step, 0)) for step in range(60)}
    assert len(keys) == states
    items: dict[Any, Any] = {}
    for step in range(30):
        item = images[(step, 0)]
        first = items.setdefault(images.key((step, 0)), item)
        assert torch.equal(item["img"], first["img"])
        assert torch.equal(item["bboxes"], first["bboxes"])
    assert len({item["img"].numpy().tobytes() for item in items.values()}) == states


def test_flips_are_as_likely_as_asked_and_boxes_go_with_them(scenes: Path):
    images = dataset(scenes, fliplr=0.25)
    flipped = [images.key((step, 1))[1] for step in range(400)]  # pyright: ignore[reportOptionalSubscript]
    # flipud comes first in Ultralytics' order, so fliplr is the second bit.
    assert set(flipped) == {0, 2} and 60 < flipped.count(2) < 140
    plain, mirrored = (images[(flipped.index(state), 1)] for state in (0, 2))
    assert torch.equal(plain["img"].flip(-1), mirrored["img"])
    assert torch.allclose(1 - plain["bboxes"][:, 0], mirrored["bboxes"][:, 0], atol=1e-6)
    assert torch.allclose(plain["bboxes"][:, 1:], mirrored["bboxes"][:, 1:])


@pytest.mark.parametrize(
    "more", [{"hsv_h": 0.1}, {"degrees": 5}, {"scale": 0.1}, {"bgr": 0.5}, {"translate": 0.1}]
)
def test_anything_else_is_random_each_time(scenes: Path, more: dict[str, float]):
    images = dataset(scenes, **more)
    assert images.flips is None and images.key((1, 0)) is None
    assert cache_for(front(), images, gib=None) is None


def test_keys_follow_the_image_not_its_place(scenes: Path):
    records = load_dataset(scenes).train
    whole, rest = dataset(scenes, records), dataset(scenes, records[2:])
    for step in range(4):
        for place in range(4):
            assert whole.key((step, place + 2)) == rest.key((step, place))
    assert len({whole.key((1, i))[0] for i in range(24)}) == 24  # pyright: ignore[reportOptionalSubscript]


# ---- the cache ----


def test_known_images_come_back_unloaded_as_they_would_have_been(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
):
    images, made = dataset(scenes), front()
    cache = FeatureCache(limit=GENEROUS, entries=48)
    draws = [list(range(6)), [5, 3, 1, 0], *([[1, 4, 2, 0]] * 8), []]
    parts = loaded(images, draws, cache=cache)
    known = 0
    for step, draw in enumerate(draws, start=1):
        here = list(parts.next_step())
        assert sum(map(images_in, here)) == len(draw)
        expected = {images.key((step, i)): images[(step, i)] for i in draw}
        by_boxes = {tuple(e["bboxes"].flatten().tolist()): e for e in expected.values()}
        for part in here:
            known += images_in(part) if "img" not in part else 0
            features = run_through(part, made, cache)
            for row in range(images_in(part)):
                boxes = part["bboxes"][part["batch_idx"] == row]
                item = by_boxes.pop(tuple(boxes.flatten().tolist()))
                alone = made(item["img"][None].float() / 255)
                assert torch.equal(part["cls"][part["batch_idx"] == row], item["cls"])
                assert all(
                    relative(mine[row], one[0]) < 1e-5
                    for mine, one in zip(features, alone, strict=True)
                )
        assert not by_boxes
    assert known > 20 and len(cache) <= 12
    # All states of image 1 are known by now: it is not even decoded.
    monkeypatch.setattr(RecordDataset, "get_image_and_label", None)
    again = loaded(images, [[1]], cache=cache)
    assert "features" in next(iter(again.next_step()))


@pytest.mark.parametrize("entries", [0, 1, 3])
def test_what_does_not_fit_is_computed_each_time(scenes: Path, entries: int):
    images, made = dataset(scenes, fliplr=0), front()
    size = sum(f[0].numel() * 4 for f in made(torch.zeros(1, 3, IMGSZ, IMGSZ)))
    cache = FeatureCache(limit=entries * size + size // 2, entries=24)
    parts = loaded(images, [[0, 1, 2, 3, 4]] * 3, cache=cache)
    for step in range(3):
        here = list(parts.next_step())
        assert sum(map(images_in, here)) == 5
        from_cache = sum(images_in(part) for part in here if "img" not in part)
        assert from_cache == (entries if step else 0)
        for part in here:
            run_through(part, made, cache)
    assert len(cache) == entries


def test_whoever_writes_into_features_does_not_reach_the_cache(scenes: Path):
    images, made = dataset(scenes, fliplr=0), front()
    cache = FeatureCache(limit=GENEROUS, entries=24)
    parts = loaded(images, [[0, 1]] * 3, cache=cache)
    found = []
    for _ in range(3):
        (part,) = parts.next_step()
        features = run_through(part, made, cache)
        found.append([feature.clone() for feature in features])
        for feature in features:
            feature.fill_(7)
    assert all(torch.equal(a, b) for step in found[1:] for a, b in zip(found[0], step, strict=True))


def test_views_of_an_image_stay_together(scenes: Path):
    images, made = dataset(scenes), front()
    cache = FeatureCache(limit=GENEROUS, entries=48)
    parts = loaded(images, [[0, 1, 2]] * 6, cache=cache, views=2)
    for _ in range(6):
        here = list(parts.next_step())
        assert sum(map(images_in, here)) == 6
        for part in here:
            assert set(part["unit_sizes"]) == {2} and images_in(part) % 2 == 0
            run_through(part, made, cache)
    assert "features" in here[0]


def test_known_parts_can_be_halved(scenes: Path):
    images, made = dataset(scenes, fliplr=0), front()
    cache = FeatureCache(limit=GENEROUS, entries=24)
    parts = loaded(images, [[0, 1, 2]] * 2, cache=cache)
    (new,) = parts.next_step()
    first, second = halves(new)
    assert (first["keys"], second["keys"]) == (new["keys"][:1], new["keys"][1:])
    run_through(new, made, cache)
    (known,) = parts.next_step()
    one, other = halves(known)
    assert (images_in(one), images_in(other)) == (1, 2)
    assert torch.equal(other["features"][0], known["features"][0][1:])
    assert torch.equal(other["bboxes"], known["bboxes"][known["batch_idx"] > 0])


def test_steps_are_not_drawn_ahead_when_all_is_known(scenes: Path):
    images, made = dataset(scenes, fliplr=0), front()
    cache, drawn = FeatureCache(limit=GENEROUS, entries=24), []

    def draws() -> Any:
        for step in range(9):
            drawn.append(step)
            yield [0, 1]

    parts = MicroBatches(images, draws(), first_step=1, micro_batch_size=4, cache=cache)
    for step in range(5):
        for part in parts.next_step():
            run_through(part, made, cache)
        assert len(drawn) <= step + 2


def test_parts_have_few_sizes(scenes: Path):
    images = dataset(scenes)
    draws = [list(range(n)) for n in range(1, 25)]
    parts = loaded(images, draws, micro_batch_size=16)
    sizes = {images_in(part) for _ in draws for part in parts.next_step()}
    assert sizes <= {16, 8, *range(1, 8)}


# ---- runs ----

Run = Callable[..., TrainingResult]


@pytest.fixture
def run(scenes: Path, tmp_path: Path) -> Run:
    def start(name: str, **arguments: Any) -> TrainingResult:
        given = {
            "data": str(scenes), "model": ARCHITECTURE, "norm": "frozen",
            "trainable": "neck_film+classes", "noise_multiplier": 0.5, "insecure_seed": 3,
            "batch": 8, "steps": 6, "imgsz": IMGSZ, "val": False, "name": name, **FIXED,
            "project": str(tmp_path / "runs"),
        }  # fmt: skip
        return train({**given, **arguments})

    return start


def weights(result: TrainingResult) -> dict[str, Tensor]:
    model = torch.load(result.weights, weights_only=False)["model"]
    return {name: value.float() for name, value in model.state_dict().items()}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the parts that were known."""
    sizes: list[int] = []
    part = FeatureCache.part

    def spying(self: FeatureCache, keys: Any) -> Any:
        sizes.append(len(keys))
        return part(self, keys)

    monkeypatch.setattr(FeatureCache, "part", spying)
    return sizes


@pytest.mark.parametrize("more", [{}, {"views": 2}, {"workers": 1}], ids=["", "views", "workers"])
def test_a_run_is_the_same_with_and_without(run: Run, known: list[int], more: dict[str, int]):
    kept = weights(run("kept", **more))
    assert sum(known) > (0 if "workers" in more else 4)  # a worker loads ahead of what is known
    known.clear()
    plain = weights(run("plain", feature_cache=0, **more))
    assert known == []
    for name, value in plain.items():
        torch.testing.assert_close(kept[name], value, rtol=2e-3, atol=2e-3)


def test_other_augmentation_keeps_nothing(run: Run, known: list[int]):
    run("coloured", hsv_h=0.02)
    assert known == []


def test_a_resumed_run_fills_its_cache_anew(
    run: Run, known: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    journal = StepLoop.write_journal

    def interrupt(loop: StepLoop, *args: Any, **kwargs: Any) -> None:
        journal(loop, *args, **kwargs)
        if loop.trainer.charged == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StepLoop, "write_journal", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run("interrupted")
    result = train({"resume": str(tmp_path / "runs" / "interrupted"), "feature_cache": 0.5})
    assert result.record.steps.executed == 6


def test_features_go_nowhere_but_the_process(run: Run, monkeypatch: pytest.MonkeyPatch):
    made: list[FeatureCache] = []
    cache_for = feature_cache.cache_for

    def spying(*args: Any, **kwargs: Any) -> FeatureCache | None:
        cache = cache_for(*args, **kwargs)
        made.extend([] if cache is None else [cache])
        return cache

    monkeypatch.setattr("discreet.yolo.loop.cache_for", spying)
    result = run("quiet")
    (cache,) = made
    some = cache.part(list(cache._slots)[:1])["features"][0].contiguous().numpy().tobytes()
    files = [f for f in result.release.parent.rglob("*") if f.is_file()]
    assert files and not any(some[:64] in f.read_bytes() for f in files)
