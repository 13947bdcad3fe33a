"""How exactly a run computes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_leaves

from discreet.errors import CheckError, ConfigurationError
from discreet.launched import Place
from discreet.performance import PerformanceConfig
from discreet.yolo import checking, loop
from discreet.yolo.checking import check_arguments
from discreet.yolo.frozen import FrozenFront
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.precision import is_fast_in_bfloat16, takes_bfloat16
from discreet.yolo.timing import measure_step
from discreet.yolo.train import PrivateDetectionTrainer

from ..planted.models import centre_over_the_batch
from .conftest import ARCHITECTURE, Run

pytestmark = pytest.mark.usefixtures("unchecked", "hasty")

SLOW = pytest.mark.slow
AMX, AVX512, OLDER = {"amx_bf16": True}, {"avx512_bf16": True, "amx_bf16": False}, {"avx2": True}


def has(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool]) -> None:
    """A CPU that says so."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


@pytest.mark.parametrize(
    ("cpu", "fast"), [(AMX, True), (AVX512, True), (OLDER, False), ({}, False)]
)
def test_cpus_that_are_faster_in_bfloat16_are_known(
    cpu: dict[str, bool], fast: bool, monkeypatch: pytest.MonkeyPatch
):
    has(monkeypatch, cpu)
    assert is_fast_in_bfloat16(torch.device("cpu")) is fast
    assert not is_fast_in_bfloat16(torch.device("cuda"))
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not is_fast_in_bfloat16(torch.device("cpu"))


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each pass of a run computed in bfloat16, in their order."""
    seen: list[bool] = []
    predict = PrivateDetectionTrainer.predictions

    def looking(trainer: PrivateDetectionTrainer, batch: dict[str, Any]) -> Any:
        with register_module_forward_hook(look):
            return predict(trainer, batch)

    def look(layer: nn.Module, _inputs: object, output: Any) -> None:
        if isinstance(layer, nn.Conv2d):
            seen.append(output.dtype == torch.bfloat16)

    monkeypatch.setattr(PrivateDetectionTrainer, "predictions", looking)
    return seen


@pytest.mark.parametrize(
    ("given", "cpu", "half"),
    [
        ({}, AMX, True),
        ({}, OLDER, False),
        ({"amp": False}, AMX, False),
        ({"amp": "fp32"}, AMX, False),
        ({"amp": "bf16"}, OLDER, True),
    ],
)
def test_what_is_given_wins(
    run: Run,
    halves: list[bool],
    given: dict[str, Any],
    cpu: dict[str, bool],
    half: bool,
    monkeypatch: pytest.MonkeyPatch,
):
    has(monkeypatch, cpu)
    run(**given)
    assert halves[-1] == half


@pytest.mark.parametrize("cpu", [AMX, OLDER])
def test_a_plan_times_what_training_takes(cpu: dict[str, bool], monkeypatch: pytest.MonkeyPatch):
    has(monkeypatch, cpu)
    computed: set[torch.dtype] = set()

    def look(layer: nn.Module, _inputs: object, output: Any) -> None:
        if isinstance(layer, nn.Conv2d) and torch.is_grad_enabled():
            computed.add(output.dtype)

    with register_module_forward_hook(look):
        measure_step(ARCHITECTURE, 64, "classes")
        assert (torch.bfloat16 in computed) == (cpu is AMX)
        computed.clear()
        measure_step(ARCHITECTURE, 64, "classes", bfloat16=False)
        assert torch.bfloat16 not in computed


def test_losses_are_no_place_for_rounding(run: Run, monkeypatch: pytest.MonkeyPatch):
    seen: set[torch.dtype] = set()
    compute = PerImageLoss.__call__

    def looking(loss: PerImageLoss, predicted: Any, batch: Any) -> Tensor:
        seen.update(leaf.dtype for leaf in tree_leaves(predicted) if isinstance(leaf, Tensor))
        return compute(loss, predicted, batch)

    monkeypatch.setattr(PerImageLoss, "__call__", looking)
    run(amp="bf16")
    assert seen == {torch.float32}


@pytest.mark.parametrize(
    ("asked", "hosts", "taken"),
    [(None, 1, False), (None, 2, False), (False, 2, False), (True, 2, "hosts may round")],
)
def test_a_team_computes_in_bfloat16_only_where_asked_and_on_one_host(
    asked: bool | None, hosts: int, taken: object, monkeypatch: pytest.MonkeyPatch
):
    has(monkeypatch, AMX)
    trainer: Any = SimpleNamespace(
        prepared=SimpleNamespace(performance=PerformanceConfig(bfloat16=asked)),
        team=SimpleNamespace(place=Place(rank=0, size=2, local_rank=0, local_size=2 // hosts)),
        device=torch.device("cpu"),
    )
    if isinstance(taken, str):
        with pytest.raises(ConfigurationError, match=taken):
            takes_bfloat16(trainer)
    else:
        assert takes_bfloat16(trainer) is taken


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
    run(amp="bf16", **more)
    assert changes == [pytest.approx(0, abs=1e-5)]


@pytest.mark.usefixtures("left_alone")
def test_no_run_takes_bfloat16_where_it_rounds_by_how_many_are_drawn(
    run: Run, halves: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ConfigurationError, match="depends on how many") as error:
        run(amp="bf16")
    assert error.value.where == "amp=bf16"
    assert not list((tmp_path / "runs").iterdir())
    has(monkeypatch, AMX)
    run()
    assert not halves[-1]


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
