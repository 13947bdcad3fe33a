"""Single precision as it is written, without the shortcuts that may be taken in its name."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from discreet.errors import ConfigurationError

# What computes in float32, by torch.backends' names.
_OPERATIONS = (
    "cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn",
)  # fmt: skip
# What libraries take from the environment whatever torch tells them, and what does no harm.
_OVERRIDES = {
    "ONEDNN_DEFAULT_FPMATH_MODE": ("", "STRICT"),
    "DNNL_DEFAULT_FPMATH_MODE": ("", "STRICT"),
    "NVIDIA_TF32_OVERRIDE": ("", "0"),
}

_Setting = tuple[Callable[[], Any], Callable[[Any], None], object]
_lock = threading.Lock()
_inside = 0
_undo = ExitStack()


@contextmanager
def exact_arithmetic() -> Generator[None]:
    """Neither TF32 nor bfloat16 in place of float32 while it lasts, in the whole process.

    cuDNN's convolutions take TF32 unless they are told otherwise. Its rounding depends on the
    kernel, and the kernel on how many examples there are: a per-example gradient then changes by
    10⁻³ to 10⁻² of itself with who else is drawn, and a sum of clipped gradients by more than what
    one example adds. Autocasting is another thing, and stays.

    Several threads may be inside; the last puts back what was set. torch does not tell what an
    operation has from `torch.backends.fp32_precision` and what is its own: where the former is in
    use, it is its own afterwards.

    Raises:
        ConfigurationError: The environment overrides what torch is told.
    """
    refuse_overrides()
    _enter()
    try:
        yield
    finally:
        _leave()


def refuse_overrides() -> None:
    """Refuse an environment in which float32 is not what it says.

    Raises:
        ConfigurationError: It overrides what torch is told.
    """
    for name, harmless in _OVERRIDES.items():
        value = os.environ.get(name, "")
        if value.upper() not in harmless:
            raise ConfigurationError(
                f"{name}={value} has float32 rounded more coarsely than what is accounted for",
                where="the environment",
                do=f"unset {name}",
            )


def _enter() -> None:
    global _inside, _undo
    with _lock, ExitStack() as undo:
        if not _inside:
            settings = [*_older_settings(), *_newer_settings()]
            before = [_read(get) for get, _, _ in settings]
            # Undone from the end: newer settings, which rule, come last.
            for (_, put, _), value in reversed([*zip(settings, before, strict=True)]):
                if value is not None:
                    undo.callback(put, value)
            for _, put, exact in settings:
                put(exact)
            _undo = undo.pop_all()
        _inside += 1


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if not _inside:
            _undo.close()


def _older_settings() -> list[_Setting]:
    """How it is read and set, and what is exact; kept beside the newer for whoever reads them."""
    matmul = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    return [(*matmul, "highest"), (*_attribute(torch.backends.cudnn, "allow_tf32"), False)]


def _newer_settings() -> list[_Setting]:
    """The same from torch 2.9 on: one for each operation; none before."""
    found: list[_Setting] = []
    for name in _OPERATIONS:
        library, kind = name.split(".")
        operation = getattr(getattr(torch.backends, library), kind, None)
        if hasattr(operation, "fp32_precision"):
            found.append((*_attribute(operation, "fp32_precision"), "ieee"))
    return found


def _attribute(owner: object, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    return partial(getattr, owner, name), partial(setattr, owner, name)


def _read(get: Callable[[], Any]) -> Any:
    """What is set; None where an older setting cannot say what newer ones have made of it."""
    try:
        return get()
    except RuntimeError:
        return None
