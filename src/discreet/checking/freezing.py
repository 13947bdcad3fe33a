"""Frozen randomness, and a model that is left as it was found."""

from __future__ import annotations

import copy
import random
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]

from discreet.checking.attributes import Attributes, same

SEED = 20240229


class Snapshot:
    """Everything that a step may change in a model and an optimizer.

    Args:
        model: The model.
        optimizer: The optimizer.
        holders: Further functions or objects that may keep something, by name.

    Attributes:
        attributes: What is held beside parameters and buffers.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        holders: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self._optimizer = model, optimizer
        self.attributes = Attributes(model, holders)
        self._tensors = [(name, t, t.detach().clone()) for name, t in _tensors(model)]
        self._modes = [(module, module.training) for module in model.modules()]
        self._flags = [(p, p.requires_grad, p.grad) for p in model.parameters()]
        self._own = _optimizer_tensors(optimizer)
        self._state = copy.deepcopy(optimizer.state_dict())

    def changed(self) -> list[str]:
        """Names of the model's tensors that are no longer bit for bit what they were."""
        return [name for name, now, then in self._tensors if not same(now.detach(), then)]

    def restore_tensors(self) -> None:
        """Put parameters, buffers and attributes back."""
        self.attributes.restore()
        with torch.no_grad():
            for _, now, then in self._tensors:
                now.copy_(then)
            for now, then in self._own:
                now.copy_(then)

    def restore(self) -> None:
        """Put everything back."""
        self.restore_tensors()
        for module, mode in self._modes:
            module.training = mode
        for parameter, flag, grad in self._flags:
            parameter.requires_grad_(flag)
            parameter.grad = grad
        self._optimizer.load_state_dict(self._state)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> list[tuple[Tensor, Tensor]]:
    held = [p for group in optimizer.param_groups for p in group["params"]]
    return [(p, p.detach().clone()) for p in held]


@contextmanager
def frozen_randomness(devices: list[int]) -> Generator[None]:
    """The same global random numbers each time; the caller's state comes back.

    Args:
        devices: Indices of the CUDA devices in use.
    """
    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        seed_all(SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


def seed_all(seed: int) -> None:
    """All global generators begin here; inside of `frozen_randomness`, which puts them back."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


@contextmanager
def reseeding(model: nn.Module) -> Generator[None]:
    """Every forward pass of the model begins with the same state of torch's generators."""

    def reseed(*_: object) -> None:
        torch.manual_seed(SEED)

    handle = model.register_forward_pre_hook(reseed)
    try:
        yield
    finally:
        handle.remove()


def random_state(devices: list[int]) -> tuple[bytes, ...]:
    """A fingerprint of torch's global generators: it moves when something draws from them."""
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in devices)]
    return tuple(state.numpy().tobytes() for state in states)


def has_dropout(model: nn.Module) -> bool:
    """Whether a dropout layer is at work."""
    return any(isinstance(m, _DropoutNd) and m.training for m in model.modules())


@contextmanager
def without_dropout(model: nn.Module) -> Generator[None]:
    """Dropout layers in evaluation mode."""
    layers = [m for m in model.modules() if isinstance(m, _DropoutNd) and m.training]
    try:
        for layer in layers:
            layer.training = False
        yield
    finally:
        for layer in layers:
            layer.training = True


def cuda_devices(model: nn.Module) -> list[int]:
    """Indices of the CUDA devices that hold the model."""
    found: set[int] = set()
    with suppress(RuntimeError):
        found = {t.device.index or 0 for _, t in _tensors(model) if t.device.type == "cuda"}
    return sorted(found)
