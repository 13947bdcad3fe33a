"""On a GPU: the same gradients, the same noise, the same run from the plan to the statement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from discreet.api import train
from discreet.clipping import ClippedSum, FlatClipping
from discreet.gradients import make_engine
from discreet.noise import GaussianMechanism
from discreet.randomness import make_source
from discreet.statement.verify import verify_release
from discreet.step import sum_clipped
from discreet.yolo.checking import check_arguments
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.model import fast_layout

from .conftest import ARCHITECTURE, IMGSZ, counts, make_batch, make_model, relative, trained

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    # PyTorch's own words on running backward in a thread of its own, and on TF32.
    pytest.mark.filterwarnings("default::UserWarning"),
]
DEVICE = torch.device("cuda:0")


def clipped_sums(
    device: torch.device, engine: str, *, norm: str, bound: float, boxes: Sequence[int]
) -> torch.Tensor:
    model = make_model(norm).to(device)
    if device == DEVICE:
        fast_layout(model)
    parameters, loss = trained(model), PerImageLoss(model)
    batch = {name: part.to(device) for name, part in make_batch(boxes).items()}
    gradients = make_engine(engine, model, parameters).per_example_gradients(
        lambda: loss(model(batch["img"]), batch).sum(1)
    )
    sums = FlatClipping(max_grad_norm=bound).clip_and_sum(gradients).sums
    return torch.cat([sums[name].flatten() for name in parameters]).cpu()


@pytest.mark.parametrize("boxes", [[3, 0, 12, 1], [3]], ids=["four images", "one image"])
@pytest.mark.parametrize("bound", [0.1, 1e6], ids=["all clipped", "none clipped"])
@pytest.mark.parametrize("norm", ["frozen", "group"])
@pytest.mark.parametrize("engine", ["discreet", "opacus"])
def test_gradients_are_those_of_the_cpu(
    engine: str, norm: str, bound: float, boxes: Sequence[int], monkeypatch: pytest.MonkeyPatch
):
    """One image alone is a case of its own: its layouts are ambiguous, and some kernels differ."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    how: Any = {"norm": norm, "bound": bound, "boxes": boxes}
    expected = clipped_sums(torch.device("cpu"), "reference", **how)
    assert relative(clipped_sums(DEVICE, engine, **how), expected) < 1e-3


@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_who_else_is_drawn_changes_no_gradient(norm: str):
    """By TF32, which torch allows, it does by 10⁻³ to 10⁻² of one."""
    assert torch.backends.cudnn.allow_tf32
    model = make_model(norm).to(DEVICE)
    fast_layout(model)
    parameters, loss = trained(model), PerImageLoss(model)
    engine = make_engine("discreet", model, parameters)

    def gradients_of(images: Sequence[int]) -> Any:
        whole = make_batch([1 + image % 4 for image in range(33)])
        chosen = [whole["batch_idx"] == image for image in images]
        batch: dict[str, Any] = {"img": whole["img"][list(images)].to(DEVICE)}
        for name in ("cls", "bboxes"):
            batch[name] = torch.cat([whole[name][own] for own in chosen]).to(DEVICE)
        places = [torch.full((int(own.sum()),), i) for i, own in enumerate(chosen)]
        batch["batch_idx"] = torch.cat(places).to(DEVICE, whole["batch_idx"].dtype)
        return engine.per_example_gradients(lambda: loss(model(batch["img"]), batch).sum(1))

    def summed(*parts: Sequence[int]) -> torch.Tensor:
        clipping = FlatClipping(max_grad_norm=1e-2)
        found = sum_clipped(
            parts, parameters=parameters, gradients_of=gradients_of, clipping=clipping
        )
        return torch.cat([found.sums[name].flatten() for name in parameters]).double() / 1e-2

    one = summed([0])
    assert float(one.norm()) == pytest.approx(1, rel=1e-3)
    for others in (range(1, 2), range(1, 16), range(1, 33)):
        together, alone = summed([0, *others]), summed(list(others))
        assert float((together - alone - one).norm()) < 1e-3


def test_noise_has_the_declared_deviation():
    sums = {"weight": torch.zeros(1000, 1000, device=DEVICE), "bias": torch.zeros(7, device=DEVICE)}
    noised = GaussianMechanism(noise_multiplier=2.0).privatise(
        ClippedSum(sums=sums, sensitivity=3.0, units=0), make_source()
    )
    assert noised["weight"].device == DEVICE
    assert float(noised["weight"].std()) == pytest.approx(6.0, rel=0.01)
    assert float(noised["bias"].abs().min()) > 0


def run(scenes: Path, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "data": str(scenes), "model": ARCHITECTURE, "epsilon": 8, "batch": 6, "steps": 4,
        "imgsz": IMGSZ, "device": "0", "project": str(tmp_path / "runs"), **more,
    }  # fmt: skip


@pytest.mark.parametrize("engine", ["discreet", "opacus"])
def test_a_run(scenes: Path, tmp_path: Path, engine: str):
    result = train(run(scenes, tmp_path, engine=engine, val_data="public"))
    assert result.claim_valid and counts(result) == (4, 4, 4)
    assert verify_release(result.release).valid


def test_a_run_of_views_and_parts(scenes: Path, tmp_path: Path):
    """Kept features, several views and mosaics live on the device as well."""
    result = train(run(scenes, tmp_path, trainable="classes", views=2, mosaic=0.5, val=False))
    assert result.claim_valid


def test_the_full_check_passes(scenes: Path, tmp_path: Path):
    report = check_arguments(run(scenes, tmp_path), full=True)
    assert report.passed, [f for f in report.findings if f.verdict == "failed"]
