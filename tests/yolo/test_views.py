"""Views: several augmentations of an image, one gradient, one bound, one unit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics.data.dataset import YOLODataset

from discreet.api import train
from discreet.clipping import FlatClipping
from discreet.errors import CheckError
from discreet.gradients import make_engine
from discreet.statement.verify import verify_release
from discreet.yolo.checking import check_arguments
from discreet.yolo.feature_cache import FeatureCache
from discreet.yolo.loading import MicroBatches
from discreet.yolo.loop import StepLoop
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.microbatch import halves

from .conftest import ARCHITECTURE, IMGSZ, TAKEN_APART, make_batch, make_model


def trainer_of(model: torch.nn.Module) -> Any:
    """As much of a trainer as a gradient needs."""
    return SimpleNamespace(
        preprocess_batch=lambda batch: batch,
        device=torch.device("cpu"),
        amp=False,
        model=model,
        predictions=lambda batch: model(batch["img"]),
        per_image_loss=PerImageLoss(model),
        journal=SimpleNamespace(add_losses=lambda _terms: None),
    )


@pytest.mark.parametrize("engine", ["discreet", "reference"])
def test_views_are_averaged_before_they_are_clipped(engine: str):
    model = make_model(trainable="film+head")
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    trainer = trainer_of(model)
    made = make_engine(engine, model, parameters)
    batch = make_batch([3, 1, 2, 4])  # two images of two views

    def gradients(batch: dict[str, Any]) -> Any:
        return StepLoop(trainer).gradients_of(made, batch)

    apart, together = gradients(batch), gradients({**batch, "unit_sizes": [2, 2]})
    rows = {n: torch.stack([_row(apart, n, i) for i in range(4)]) for n in parameters}
    means = {n: r.unflatten(0, (2, 2)).mean(1) for n, r in rows.items()}
    total = torch.stack(list(together.squared_norms.values())).sum(0)
    true = torch.stack([m.flatten(1).square().sum(1) for m in means.values()]).sum(0)
    assert torch.allclose(total, true, rtol=1e-3)
    clipped = FlatClipping(max_grad_norm=1e-3).clip_and_sum(together)
    assert clipped.units == 2  # each image one bound, whatever its views
    length = torch.cat([v.flatten() for v in clipped.sums.values()]).norm()
    assert float(length) <= 2e-3


def _row(gradients: Any, name: str, i: int) -> torch.Tensor:
    some = next(iter(gradients.squared_norms.values()))
    weight = torch.zeros_like(some)
    weight[i] = 1
    return gradients.weighted_sum(dict.fromkeys(gradients.squared_norms, weight))[name]


class Numbers:
    """A data set that tells what it was asked for."""

    def __getitem__(self, index: tuple[int, int, int]) -> dict[str, Any]:
        return {"img": torch.tensor(index), "cls": torch.zeros(1, 1), "bboxes": torch.zeros(1, 4),
                "batch_idx": torch.zeros(1)}  # fmt: skip

    collate_fn = staticmethod(YOLODataset.collate_fn)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_no_part_breaks_the_views_of_an_image_apart(size: int):
    draws = iter([[4, 7, 9], [], [2]])
    parts = MicroBatches(Numbers(), draws, first_step=1, micro_batch_size=size, views=3)  # pyright: ignore
    seen: list[list[list[int]]] = []
    for _ in range(3):
        seen.append([])
        for part in parts.next_step():
            assert set(part["unit_sizes"]) == {3}
            assert len(part["img"]) == sum(part["unit_sizes"]) <= max(size, 3)
            seen[-1] += part["img"].tolist()
    assert seen[0] == [[1, image, view] for image in (4, 7, 9) for view in range(3)]
    assert seen[1] == [] and seen[2] == [[3, 2, view] for view in range(3)]


def test_halves_keep_views_together():
    batch = {**make_batch([1, 2, 0, 3, 1, 1]), "unit_sizes": [2, 2, 2]}
    first, second = halves(batch)
    assert (len(first["img"]), len(second["img"])) == (2, 4)
    assert (first["unit_sizes"], second["unit_sizes"]) == ([2], [2, 2])
    assert len(halves(first)) == 1


def given(scenes: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "data": str(scenes), "model": ARCHITECTURE, "epsilon": 8, "batch": 8, "steps": 2,
        "imgsz": IMGSZ, "val": False, "project": str(tmp_path / "runs"), "views": 2,
    }  # fmt: skip


@pytest.mark.slow
def test_a_run_with_views_verifies_and_says_so(scenes: Path, tmp_path: Path):
    result = train(given(scenes, tmp_path))
    assert verify_release(result.release).valid
    assert result.record.configuration["views"] == 2
    assert result.record.data.training.units == 24


@pytest.mark.slow
@pytest.mark.parametrize(("place", "mistake", "probe"), TAKEN_APART)
def test_views_that_are_taken_apart_are_seen_before_a_run_and_by_the_check(
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    mistake: Any,
    probe: str,
):
    """Each view would have a bound of its own, and an image as many times its influence."""
    monkeypatch.setattr(place, mistake)
    report = check_arguments(given(scenes, tmp_path))
    assert probe in [f.probe for f in report.findings if f.verdict == "failed"]
    with pytest.raises(CheckError):
        train(given(scenes, tmp_path))


def test_known_views_that_are_taken_apart_are_seen(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Features that are kept come back in parts of their own: what is one unit stays one."""
    frozen = {**given(scenes, tmp_path), "trainable": "head", "hsv_h": 0, "hsv_s": 0, "hsv_v": 0}
    frozen |= {"translate": 0, "scale": 0, "erasing": 0}
    assert check_arguments(frozen).passed
    own = FeatureCache.part

    def part(self: FeatureCache, keys: Any) -> dict[str, Any]:
        return {**own(self, keys), "unit_sizes": [1] * len(keys)}

    class Apart(dict[str, Any]):
        """Keeps what it has."""

        def __or__(self, other: Any) -> Any:
            return {**other, **self}

    monkeypatch.setattr(FeatureCache, "part", lambda self, keys: Apart(part(self, keys)))
    report = check_arguments(frozen)
    assert "features" in [f.probe for f in report.findings if f.verdict == "failed"]


def test_the_check_has_nothing_against_views(scenes: Path, tmp_path: Path):
    report = check_arguments(given(scenes, tmp_path))
    assert report.passed, report.to_text()
    assert "units" in [f.probe for f in report.findings if f.verdict == "passed"]
