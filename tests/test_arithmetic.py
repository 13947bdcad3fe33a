"""Single precision is what it says, whatever torch was allowed before, and that is put back."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from discreet import arithmetic
from discreet.arithmetic import exact_arithmetic
from discreet.errors import ConfigurationError

OPERATIONS = (
    "cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn",
)  # fmt: skip


def operation(name: str):
    library, kind = name.split(".")
    return getattr(getattr(torch.backends, library), kind, None)


def older() -> tuple[object, object]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def newer() -> dict[str, str]:
    found = {name: getattr(operation(name), "fp32_precision", None) for name in OPERATIONS}
    return {name: value for name, value in found.items() if value is not None}


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    words, each = older(), newer()
    yield
    torch.set_float32_matmul_precision(str(words[0]))
    torch.backends.cudnn.allow_tf32 = bool(words[1])
    for name, value in each.items():
        operation(name).fp32_precision = value


def allow(what: str) -> None:
    if what in ("high", "medium"):
        torch.set_float32_matmul_precision(what)
    if what == "by operation":
        for name in newer():
            operation(name).fp32_precision = "tf32"


@pytest.mark.parametrize("what", ["as torch has it", "high", "medium"])
def test_nothing_less_than_float32_is_taken_for_it(what: str):
    allow(what)
    before = older(), newer()
    with exact_arithmetic():
        assert older() == ("highest", False)
        assert set(newer().values()) <= {"ieee"}
    assert (older(), newer()) == before


needs_operations = pytest.mark.skipif(not newer(), reason="needs torch 2.9 or newer")


@needs_operations
def test_where_torch_has_no_one_word_for_what_is_allowed():
    allow("by operation")
    before = newer()
    with pytest.raises(RuntimeError, match="precision"):
        older()
    with exact_arithmetic():
        assert older() == ("highest", False)
    assert newer() == before


def test_several_threads_are_exact_until_each_has_left():
    allow("medium")
    before = older(), newer()
    entered, may_leave = threading.Event(), threading.Event()
    found: list[object] = []

    def stay() -> None:
        with exact_arithmetic():
            entered.set()
            may_leave.wait(10)
            found.append((older(), set(newer().values())))

    thread = threading.Thread(target=stay)
    with exact_arithmetic():
        thread.start()
        entered.wait(10)
        with exact_arithmetic():
            pass
    may_leave.set()
    thread.join()
    assert found == [(("highest", False), {"ieee"} if newer() else set())]
    assert (older(), newer()) == before


@pytest.mark.parametrize(
    ("name", "value", "harmful"),
    [
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16", True),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "strict", False),
        ("DNNL_DEFAULT_FPMATH_MODE", "any", True),
        ("NVIDIA_TF32_OVERRIDE", "1", True),
        ("NVIDIA_TF32_OVERRIDE", "0", False),
    ],
)
def test_an_environment_that_overrides_it_is_refused(
    name: str, value: str, harmful: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, value)
    if harmful:
        with pytest.raises(ConfigurationError, match=f"{name}={value}"), exact_arithmetic():
            pass
    else:
        with exact_arithmetic():
            pass


def test_an_error_puts_it_back():
    before = older(), newer()
    with pytest.raises(ValueError, match="inside"), exact_arithmetic():
        raise ValueError("inside")
    assert (older(), newer()) == before


def test_what_cannot_be_set_is_put_back_and_tried_again(monkeypatch: pytest.MonkeyPatch):
    """And never taken for set."""
    allow("medium")
    before = older(), newer()

    def refuse(_: object) -> None:
        raise OSError("not on this build")

    with monkeypatch.context() as patch:
        patch.setattr(arithmetic, "_newer_settings", lambda: [(str, refuse, "")])
        for _ in range(2):
            with pytest.raises(OSError, match="this build"), exact_arithmetic():
                raise AssertionError("not exact, and entered all the same")
    assert (older(), newer()) == before
    with exact_arithmetic():
        assert older() == ("highest", False)
    assert (older(), newer()) == before


def test_older_versions_have_fewer_settings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arithmetic, "_newer_settings", list)
    allow("medium")
    before = older()
    with exact_arithmetic():
        assert older() == ("highest", False)
    assert older() == before


def test_a_product_is_exact_where_bfloat16_was_allowed():
    a = torch.rand(64, 512, generator=torch.Generator().manual_seed(1)) - 0.5
    exact = a.double() @ a.double().T

    def error() -> float:
        return float((a @ a.T - exact).abs().max())

    allow("medium")
    if error() < 1e-2:
        pytest.skip("this CPU multiplies in float32 all the same")
    with exact_arithmetic():
        assert error() < 1e-4
