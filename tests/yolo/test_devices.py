"""How exactly a run computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from discreet.terminal import SilentReporter
from discreet.yolo.devices import usual_amp
from discreet.yolo.inputs import read_inputs
from discreet.yolo.timing import measure_step

from .conftest import ARCHITECTURE, Run

AMX, AVX512, OLDER = {"amx_bf16": True}, {"avx512_bf16": True, "amx_bf16": False}, {"avx2": True}


def has(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool]) -> None:
    """A CPU that says so."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


@pytest.mark.parametrize(
    ("capabilities", "usual"), [(AMX, "bf16"), (AVX512, "bf16"), (OLDER, False), ({}, False)]
)
def test_cpus_that_are_faster_in_bfloat16_compute_so(
    capabilities: dict[str, bool], usual: object, monkeypatch: pytest.MonkeyPatch
):
    has(monkeypatch, capabilities)
    assert usual_amp(torch.device("cpu")) == usual
    assert usual_amp(torch.device("cuda")) is False
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert usual_amp(torch.device("cpu")) is False


@pytest.mark.parametrize(
    ("given", "capabilities", "taken"),
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
    capabilities: dict[str, bool],
    taken: object,
    scenes: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    has(monkeypatch, capabilities)
    asked = {"data": str(scenes), "model": ARCHITECTURE, "epsilon": 8, **given}
    inputs = read_inputs(asked, reporter=SilentReporter())
    assert inputs.settings["amp"] == taken
    assert "amp" in given or "amp" not in inputs.given  # another machine may resume the run


@pytest.mark.parametrize("capabilities", [AMX, OLDER])
def test_a_run_computes_and_is_timed_alike(
    run: Run, capabilities: dict[str, bool], monkeypatch: pytest.MonkeyPatch
):
    has(monkeypatch, capabilities)
    halves: list[bool] = []

    def look(layer: nn.Module, _inputs: object, output: Any) -> None:
        if isinstance(layer, nn.Conv2d) and torch.is_grad_enabled():
            halves.append(output.dtype == torch.bfloat16)

    def any_half() -> bool:
        found, halves[:] = any(halves), []
        return found

    with register_module_forward_hook(look):
        run()
        assert any_half() == (capabilities is AMX)
        measure_step(ARCHITECTURE, 64, "classes")
        assert any_half() == (capabilities is AMX)
        measure_step(ARCHITECTURE, 64, "classes", amp=False)
        assert not any_half()
