"""Single precision as it is written, without the shortcuts that torch may take in its name."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

# What computes in float32, by torch.backends' names.
_OPERATIONS = (
    "cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn",
)  # fmt: skip


@contextmanager
def exact_arithmetic() -> Generator[None]:
    """Neither TF32 nor bfloat16 in place of float32 while it lasts, in the whole process.

    cuDNN's convolutions take TF32 unless they are told otherwise. Its rounding depends on the
    kernel, and the kernel on how many examples there are: a per-example gradient then changes by
    10⁻³ to 10⁻² of itself with who else is drawn, and a sum of clipped gradients by more than what
    one example adds. Autocasting is another thing, and stays.
    """
    settings = [*_older_settings(), *_newer_settings()]
    before = [_read(get) for get, _, _ in settings]
    try:
        for _, put, exact in settings:
            put(exact)
        yield
    finally:
        for (_, put, _), value in zip(settings, before, strict=True):  # newer ones last: they rule
            if value is not None:
                put(value)


_Setting = tuple[Callable[[], Any], Callable[[Any], None], object]


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
