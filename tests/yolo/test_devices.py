"""How exactly a run computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from discreet.errors import CheckError, ConfigurationError
from discreet.terminal import SilentReporter
from discreet.yolo import checking, loop
from discreet.yolo.checking import check_arguments
from discreet.yolo.devices import usual_amp
from discreet.yolo.frozen import FrozenFront
from discreet.yolo.inputs import read_inputs
from discreet.yolo.timing import measure_step

from ..planted.models import centre_over_the_batch
from .conftest import ARCHITECTURE, Run

pytestmark = pytest.mark.usefixtures("unchecked", "hasty")

SLOW = pytest.mark.slow
AMX, AVX512, OLDER = {"amx_bf16": True}, {"avx512_bf16": True, "amx_bf16": False}, {"avx2": True}


def has(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool]) -> None:
    """A CPU that says so."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


@pytest.mark.parametrize(
    ("cpu", "usual"), [(AMX, "bf16"), (AVX512, "bf16"), (OLDER, False), ({}, False)]
)
def test_cpus_that_are_faster_in_bfloat16_compute_so(
    cpu: dict[str, bool], usual: object, monkeypatch: pytest.MonkeyPatch
):
    has(monkeypatch, cpu)
    assert usual_amp(torch.device("cpu")) == usual
    assert usual_amp(torch.device("cuda")) is False
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert usual_amp(torch.device("cpu")) is False


@pytest.mark.parametrize(
    ("given", "cpu", "taken"),
    [
        ({}, AMX, "bf16"),
        ({}, OLDER, False),
        ({"amp": False}, AMX, False),
        ({"amp": "fp32"}, AMX, "fp32"),
        ({"amp": "bf16"}, OLDER, "bf16"),
    ],
)
def test_what_is_given_wins(
    given: dict[str, Any],
    cpu: dict[str, bool],
    taken: object,
    scenes: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    has(monkeypatch, cpu)
    asked = {"data": str(scenes), "model": ARCHITECTURE, "epsilon": 8, **given}
    inputs = read_inputs(asked, reporter=SilentReporter())
    assert inputs.settings["amp"] == taken
    assert "amp" in given or "amp" not in inputs.given  # another machine may resume the run


@pytest.mark.parametrize("cpu", [AMX, OLDER])
def test_a_run_computes_and_is_timed_alike(
    run: Run, cpu: dict[str, bool], monkeypatch: pytest.MonkeyPatch
):
    has(monkeypatch, cpu)
    halves: list[bool] = []

    def look(layer: nn.Module, _inputs: object, output: Any) -> None:
        if isinstance(layer, nn.Conv2d) and torch.is_grad_enabled():
            halves.append(output.dtype == torch.bfloat16)

    def any_half() -> bool:
        found, halves[:] = any(halves), []
        return found

    with register_module_forward_hook(look):
        run()
        assert any_half() == (cpu is AMX)
        measure_step(ARCHITECTURE, 64, "classes")
        assert any_half() == (cpu is AMX)
        measure_step(ARCHITECTURE, 64, "classes", amp=False)
        assert not any_half()


# ---- rounding that depends on who else is drawn ----


@pytest.fixture
def rounded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image alone comes out a little otherwise than beside another, as kernels may have it."""
    rest = FrozenFront.rest

    def rounding(front: FrozenFront, features: tuple[Tensor, ...]) -> Any:
        alone = len(features[0]) == 1 and torch.is_autocast_enabled("cpu")
        return rest(front, tuple(f * 1.01 for f in features) if alone else features)

    monkeypatch.setattr(FrozenFront, "rest", rounding)


@pytest.fixture
def left_alone(rounded_alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no copy is put beside it."""
    monkeypatch.setattr(loop, "beside_itself", lambda batch, _: (batch, None, 1.0))


@pytest.mark.usefixtures("rounded_alone")
@pytest.mark.parametrize(
    "more",
    [{}, *(pytest.param(m, marks=SLOW) for m in ({"feature_cache": 0}, {"engine": "opacus"}))],
)
def test_an_image_alone_adds_what_it_adds_beside_others(
    run: Run, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    changes: list[float] = []
    measure = checking.change_by_company
    monkeypatch.setattr(
        checking, "change_by_company", lambda run: changes.append(measure(run)) or changes[-1]
    )
    result = run(amp="bf16", micro_batch=1, **more)
    assert changes == [pytest.approx(0, abs=1e-5)]
    assert result.record.configuration["amp"] == "bf16"


@pytest.mark.usefixtures("left_alone")
def test_no_run_takes_bfloat16_where_it_rounds_by_how_many_are_drawn(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ConfigurationError, match="depends on how many") as error:
        run(amp="bf16")
    assert error.value.where == "amp=bf16"
    assert not list((tmp_path / "runs").iterdir())
    has(monkeypatch, AMX)
    assert run().record.configuration["amp"] is False


@pytest.mark.checked
def test_a_model_that_lets_images_meet_is_left_to_the_check(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    centre_over_the_batch(monkeypatch)
    with pytest.raises(CheckError, match="not private"):
        run(amp="bf16", norm="frozen")


@pytest.mark.real_data
@pytest.mark.parametrize("more", [{"zoom": 1, "clipping": "flat"}, {"trainable": "all"}])
def test_real_kernels_round_an_image_alike_in_any_company(
    shared_data: Path,
    yolov8n_weights: Path,
    capabilities: dict[str, object],
    more: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
):
    if not (capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")):
        pytest.skip("this CPU is not faster in bfloat16")
    changes: list[float] = []
    measure = checking.change_by_company
    monkeypatch.setattr(
        checking, "change_by_company", lambda run: changes.append(measure(run)) or changes[-1]
    )
    data = shared_data / "bccd" / "data.yaml"
    given = {"data": str(data), "model": str(yolov8n_weights), "epsilon": 8, "imgsz": 160}
    assert check_arguments({**given, "amp": "bf16", **more}).passed
    assert changes == [pytest.approx(0, abs=1e-5)]
