"""How exactly a run computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_leaves

import discreet.checking
from discreet.api import plan, train
from discreet.checking import company
from discreet.errors import CheckError, ConfigurationError
from discreet.launched import Place
from discreet.performance import PerformanceConfig
from discreet.terminal import SilentReporter
from discreet.yolo import checking, loop, precision, timing
from discreet.yolo.checking import check_arguments
from discreet.yolo.comparing import compare_runs
from discreet.yolo.frozen import FrozenFront
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.microbatch import images_in
from discreet.yolo.precision import (
    is_fast_in_bfloat16,
    takes_bfloat16,
    too_many_at_once,
    wants_bfloat16,
)
from discreet.yolo.timing import measure_step
from discreet.yolo.train import PrivateDetectionTrainer

from ..planted.models import centre_over_the_batch
from .conftest import ARCHITECTURE, IMGSZ, Run, counts

pytestmark = pytest.mark.usefixtures("unchecked", "hasty")

SLOW = pytest.mark.slow
AMX, AVX512, OLDER = {"amx_bf16": True}, {"avx512_bf16": True, "amx_bf16": False}, {"avx2": True}


ENOUGH = precision._FEWEST_IMAGES


@pytest.fixture(autouse=True)
def _small_steps_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_FEWEST_IMAGES", 1)


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


def test_steps_of_a_few_images_stay_in_float32(
    run: Run, halves: list[bool], monkeypatch: pytest.MonkeyPatch
):
    """They would mostly be filling."""
    has(monkeypatch, AMX)
    monkeypatch.setattr(precision, "_FEWEST_IMAGES", ENOUGH)
    run(batch=23)
    assert not halves[-1]
    cpu = torch.device("cpu")
    assert wants_bfloat16(None, cpu, images=24, processes=1)
    assert not wants_bfloat16(None, cpu, images=23, processes=1)
    assert wants_bfloat16(True, cpu, images=1, processes=1)


@pytest.mark.parametrize(("batch", "half"), [(23, False), (24, True), (None, True)])
def test_a_plan_times_a_step_of_few_images_in_float32(
    batch: int | None, half: bool, monkeypatch: pytest.MonkeyPatch
):
    has(monkeypatch, AMX)
    monkeypatch.setattr(precision, "_FEWEST_IMAGES", ENOUGH)
    measured: list[bool] = []
    measure = measure_step
    monkeypatch.setattr(timing, "usual_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(
        timing,
        "measure_step",
        lambda *args, bfloat16, device: (
            measured.append(bfloat16) or measure(*args, bfloat16=False, device=device)
        ),
    )
    plan(n=100, epsilon=8, batch=batch, steps=2, model=ARCHITECTURE, imgsz=IMGSZ)
    assert measured == [half]


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
        loop=SimpleNamespace(expected_images=100),
    )
    if isinstance(taken, str):
        with pytest.raises(ConfigurationError, match=taken):
            takes_bfloat16(trainer)
    else:
        assert takes_bfloat16(trainer) is taken


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(train, id="train"),
        pytest.param(check_arguments, id="check"),
        pytest.param(lambda given: plan(**given, epsilon=8), id="plan"),
        pytest.param(
            lambda given: compare_runs(
                given, epsilons=[8], stock_epochs=1, reporter=SilentReporter()
            ),
            id="compare",
        ),
    ],
)
def test_an_environment_that_rounds_is_refused_before_anything_is_read(
    begin: Callable[[dict[str, Any]], object], monkeypatch: pytest.MonkeyPatch
):
    """And before a comparison trains without privacy, which is charged."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(ConfigurationError, match="NVIDIA_TF32_OVERRIDE=1"):
        begin({"data": "missing.yaml", "model": "missing.pt"})


# ---- rounding that depends on who else is drawn ----


def rounding(monkeypatch: pytest.MonkeyPatch, which: Callable[[Tensor], Tensor]) -> None:
    """In bfloat16 some images come out a little otherwise, as kernels may have it.

    Args:
        monkeypatch: Puts it back.
        which: Of the images' (B, …) features, those: bool (B,).
    """
    rest = FrozenFront.rest

    def rounded(front: FrozenFront, features: tuple[Tensor, ...]) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            return rest(front, features)
        factors = torch.where(which(features[0]), 1.01, 1.0)[:, None, None, None]
        return rest(front, tuple(f * factors.to(f.dtype) for f in features))

    monkeypatch.setattr(FrozenFront, "rest", rounded)


def few(features: Tensor) -> Tensor:
    """All of them, where there are few."""
    return torch.full((len(features),), len(features) < 4)


def last(features: Tensor) -> Tensor:
    """The one at the last place."""
    return torch.arange(len(features)) == len(features) - 1


def odd(features: Tensor) -> Tensor:
    """Every other one."""
    return torch.arange(len(features)) % 2 == 1


def last_and_rare(features: Tensor) -> Tensor:
    """One at the last place, if it is one of a dozen."""
    digits = (features.flatten(1).double().sum(1) * 1e3).round() % 12
    return last(features) & (digits == 0)


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was measured at the set-up of each run, on few images."""
    found: list[float] = []
    measure = checking.change_by_company
    monkeypatch.setattr(checking, "_STAND_INS_IN_COMPANY", 48)
    monkeypatch.setattr(
        checking, "change_by_company", lambda run: found.append(measure(run)) or found[-1]
    )
    return found


@pytest.fixture
def _any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured are parts of any number, such as steps end with."""
    measure = discreet.checking.change_by_company
    monkeypatch.setattr(
        discreet.checking,
        "change_by_company",
        lambda subject, *, sizes: measure(subject, sizes=[*sizes, 3, 2, 1]),
    )


@pytest.mark.usefixtures("_any_number")
@pytest.mark.parametrize(
    "more",
    [{}, *(pytest.param(m, marks=SLOW) for m in ({"feature_cache": 0}, {"engine": "opacus"}))],
)
def test_an_image_among_few_adds_what_it_adds_among_many(
    run: Run, changes: list[float], more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    rounding(monkeypatch, few)
    run(amp="bf16", batch=12, **more)
    assert changes == [pytest.approx(0, abs=1e-6)]


@pytest.mark.usefixtures("_any_number", "changes")
def test_it_is_by_filling_parts_up(run: Run, monkeypatch: pytest.MonkeyPatch):
    rounding(monkeypatch, few)
    monkeypatch.setattr(loop, "filled", lambda batch, units, weights, **_: (batch, units, weights))
    with pytest.raises(ConfigurationError, match="depends on who"):
        run(amp="bf16", batch=12)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """How many images the parts of a run have."""
    seen: set[int] = set()
    compute = PerImageLoss.__call__

    def looking(loss: PerImageLoss, predicted: Any, batch: Any) -> Tensor:
        seen.add(images_in(batch))
        return compute(loss, predicted, batch)

    monkeypatch.setattr(PerImageLoss, "__call__", looking)
    return seen


def test_all_parts_of_a_run_are_of_one_size(run: Run, sizes: set[int]):
    run(amp="bf16", views=2, batch=7, steps=6, trainable="film+classes")
    assert len(sizes) == 1


@pytest.mark.usefixtures("changes")
@pytest.mark.parametrize(("given", "even"), [({"micro_batch": 2}, {2}), ({"micro_batch": 16}, {8})])
def test_a_micro_batch_is_the_most_that_is_held_and_not_filled_up_to(
    run: Run, sizes: set[int], given: dict[str, Any], even: set[int]
):
    run(amp="bf16", batch=24, **given)
    assert sizes == even


@pytest.mark.parametrize(
    ("which", "batch"),
    [(last, 12), (last_and_rare, 12), pytest.param(odd, 8, id="in pairs"), (odd, 24)],
)
def test_no_run_takes_bfloat16_where_it_rounds_by_who_else_is_drawn(
    run: Run,
    changes: list[float],
    halves: list[bool],
    tmp_path: Path,
    which: Callable[[Tensor], Tensor],
    batch: int,
    monkeypatch: pytest.MonkeyPatch,
):
    rounding(monkeypatch, which)
    with pytest.raises(ConfigurationError, match="depends on who") as error:
        run(amp="bf16", batch=batch)
    assert error.value.where == "amp=bf16" and changes[0] > 1e-4
    assert not list((tmp_path / "runs").iterdir())
    has(monkeypatch, AMX)
    run(batch=batch)
    assert not halves[-1]


def test_all_are_elsewhere_the_second_time_and_odd_places_have_even_ones():
    for size in range(2, 257):
        assert 0 < company._elsewhere(size) < size and company._elsewhere(size) % 2


def test_what_torch_takes_for_float32_is_not_measured(
    run: Run, changes: list[float], monkeypatch: pytest.MonkeyPatch
):
    allowed: set[bool] = set()
    rest = FrozenFront.rest

    def looking(front: FrozenFront, features: tuple[Tensor, ...]) -> Any:
        if not changes:
            allowed.add(torch.backends.cudnn.allow_tf32)
        return rest(front, features)

    monkeypatch.setattr(FrozenFront, "rest", looking)
    run(amp="bf16")
    assert allowed == {False}


@pytest.mark.checked
def test_a_model_that_lets_images_meet_is_left_to_the_check(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    centre_over_the_batch(monkeypatch)
    with pytest.raises(CheckError, match="not private"):
        run(amp="bf16", norm="frozen")


@pytest.mark.real_data
@pytest.mark.usefixtures("_any_number")
@pytest.mark.parametrize("more", [{"imgsz": 64, "zoom": 1}, {"trainable": "all"}])
def test_real_kernels_round_an_image_alike_in_any_company(
    shared_data: Path,
    yolov8n_weights: Path,
    capabilities: dict[str, object],
    changes: list[float],
    more: dict[str, Any],
):
    if not (capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")):
        pytest.skip("this CPU is not faster in bfloat16")
    data = shared_data / "bccd" / "data.yaml"
    given = {"data": str(data), "model": str(yolov8n_weights), "epsilon": 8, "imgsz": 160}
    assert check_arguments({**given, "amp": "bf16", **more}).passed
    assert changes == [pytest.approx(0, abs=1e-6)]


# ---- more images at once than fit ----

FULL = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets so many images through the model from the first call of a function on."""
    rest = FrozenFront.rest

    def limit(images: int, *, since: tuple[Any, str] | None = None) -> None:
        began = since is None

        def small(front: FrozenFront, features: tuple[Tensor, ...]) -> Any:
            if began and len(features[0]) > images:
                raise RuntimeError(FULL)
            return rest(front, features)

        def noticing(*args: Any, **more: Any) -> Any:
            nonlocal began
            began = True
            return function(*args, **more)

        monkeypatch.setattr(FrozenFront, "rest", small)
        if since is not None:
            function = getattr(*since)
            monkeypatch.setattr(*since, noticing)

    return limit


@pytest.mark.checked
@pytest.mark.parametrize(
    "since",
    [
        pytest.param(None, id="in the measurement"),
        pytest.param((checking, "run_checks"), id="in the check"),
        pytest.param((loop.StepLoop, "run"), id="in a step"),
    ],
)
def test_too_little_memory_for_a_part_is_told(
    run: Run, memory_for: Callable[..., None], tmp_path: Path, since: tuple[Any, str] | None
):
    """Half of it would be filled up again; the charge comes after, so nothing is spent."""
    memory_for(2, since=since)
    with pytest.raises(ConfigurationError, match="4 images do not fit the memory") as error:
        run(amp="bf16", batch=12)
    assert error.value.where == "micro_batch" and "amp=False" in str(error.value)
    assert not list((tmp_path / "runs").iterdir())


def test_a_run_that_runs_out_of_memory_goes_on_with_less_at_once_and_loses_nothing(
    run: Run, memory_for: Callable[..., None], tmp_path: Path
):
    memory_for(2, since=(loop.StepLoop, "_end_epoch"))  # after two steps of four
    with pytest.raises(ConfigurationError, match="do not fit the memory") as error:
        run(amp="bf16", batch=12, steps=4)
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"resume with: discreet train resume={folder}" in str(error.value)
    result = train({"resume": str(folder), "micro_batch": 2})
    assert counts(result) == (4, 4, 4)
    assert too_many_at_once(1).where == "imgsz"


def test_a_run_that_did_not_ask_for_bfloat16_goes_on_in_float32_where_fewer_fit(
    run: Run,
    halves: list[bool],
    memory_for: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    has(monkeypatch, AMX)
    memory_for(2)
    run(batch=12)
    assert not halves[-1]


@pytest.mark.checked
def test_a_check_that_does_not_fit_the_memory_says_so(run: Run, memory_for: Callable[..., None]):
    memory_for(1)
    with pytest.raises(ConfigurationError, match="checked on do not fit") as error:
        run(amp=False)
    assert error.value.where == f"imgsz={IMGSZ}"
