"""Remembered features of frozen layers are what would have been computed, and change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from discreet.api import train
from discreet.yolo.frozen import FrozenFront
from discreet.yolo.parts import select_trainable

from .conftest import ARCHITECTURE, IMGSZ, make_model

GENEROUS = 1 << 30


def images(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, IMGSZ, IMGSZ), generator=generator, dtype=torch.uint8)


def front_of(model: nn.Module, *, memory: int = GENEROUS, **settings: Any) -> FrozenFront | None:
    parameters = select_trainable(model, "neck_film+classes")
    return FrozenFront.of(
        model, parameters, settings=settings, device=torch.device("cpu"), memory=memory
    )


def ask(front: FrozenFront | None, pixels: Tensor) -> dict[str, Tensor]:
    assert front is not None
    return front.predict(pixels.float() / 255, pixels=pixels)


def same(one: Any, other: Any) -> bool:
    pairs = [(one[name], other[name]) for name in ("boxes", "scores")]
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)


def size(predictions: Any) -> Tensor:
    return sum(predictions[name].square().mean() for name in ("boxes", "scores"))


def counted(model: nn.Module) -> list[int]:
    seen: list[int] = []
    first = cast(Any, model).model[0]
    first.register_forward_hook(lambda *call: seen.append(len(call[-1])))
    return seen


def test_it_predicts_what_the_model_predicts():
    model = make_model()
    front = front_of(model)
    pixels = images(5)
    assert same(ask(front, pixels), model(pixels.float() / 255))


def test_an_image_is_known_by_its_pixels_wherever_it_stands():
    model = make_model()
    front, pixels = front_of(model), images(4)
    ask(front, pixels)
    computed = counted(model)
    order = [3, 0, 2]
    again = ask(front, pixels[order])
    assert computed == []
    assert same(again, model(pixels[order].float() / 255))


def test_other_pixels_are_another_image():
    model = make_model()
    front, pixels = front_of(model), images(3)
    ask(front, pixels)
    changed = pixels.clone()
    changed[1, 0, 5, 5] ^= 1
    computed = counted(model)
    assert same(ask(front, changed), model(changed.float() / 255))
    assert computed[0] == 1  # of three, one was new


@pytest.mark.parametrize("memory", [1, 20_000])
def test_what_does_not_fit_is_computed(memory: int):
    model = make_model()
    front, pixels = front_of(model, memory=memory), images(4)
    for _ in range(2):
        assert same(ask(front, pixels), model(pixels.float() / 255))


def test_gradients_of_what_trains_are_the_same():
    model = make_model()
    front, pixels = front_of(model), images(3)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for _ in range(2):
        mine = torch.autograd.grad(size(ask(front, pixels)), parameters)
        plain = torch.autograd.grad(size(model(pixels.float() / 255)), parameters)
        for one, other in zip(mine, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_it_is_not_used_where_it_would_not_pay():
    assert front_of(make_model(), hsv_h=0.015) is None
    assert front_of(make_model(), memory=0) is None
    model = make_model()
    everything = select_trainable(model, "all")
    device = torch.device("cpu")
    assert FrozenFront.of(model, everything, settings={}, device=device, memory=GENEROUS) is None


def test_a_run_is_the_same_with_and_without(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def weights(name: str) -> dict[str, Tensor]:
        result = train(
            {
                "data": str(scenes),
                "model": ARCHITECTURE,
                "norm": "frozen",
                "trainable": "neck_film+classes",
                "noise_multiplier": 0.5,
                "insecure_seed": 3,
                "batch": 8,
                "steps": 4,
                "imgsz": IMGSZ,
                "hsv_h": 0,
                "hsv_s": 0,
                "hsv_v": 0,
                "translate": 0,
                "scale": 0,
                "val": False,
                "project": str(tmp_path / "runs"),
                "name": name,
            }
        )
        state = torch.load(result.weights, weights_only=False)["model"].state_dict()
        return {key: value.float() for key, value in state.items()}

    used: list[int] = []
    predict = FrozenFront.predict

    def spying(self: FrozenFront, images: Tensor, *, pixels: Tensor) -> Any:
        used.append(len(images))
        return predict(self, images, pixels=pixels)

    monkeypatch.setattr(FrozenFront, "predict", spying)
    remembered = weights("remembered")
    assert used
    monkeypatch.setattr(FrozenFront, "of", lambda *_, **__: None)
    plain = weights("plain")
    for name, value in plain.items():
        torch.testing.assert_close(remembered[name], value, rtol=2e-3, atol=2e-3)
