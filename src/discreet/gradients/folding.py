"""Find convolutions whose output goes to a frozen BatchNorm and nowhere else.

Such a pair runs as one convolution with folded weights; see `rules.folded`. Pairs are found by
watching one forward pass: every operation that touches a convolution's output is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Trace(TorchFunctionMode):
    """Watches who uses the outputs of convolutions while one forward pass runs."""

    def __init__(self) -> None:
        super().__init__()
        self._outputs: dict[int, tuple[Tensor, nn.Module]] = {}  # kept, so that ids stay unique
        self._consumers: dict[nn.Module, list[nn.Module | None]] = {}
        self._calls: list[nn.Module] = []
        self._paused = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """An operation runs; whatever it touches is used by something unknown."""
        if not self._paused:
            for leaf in pytree.tree_leaves((args, kwargs)):
                self.consumed(leaf, None)
        return func(*args, **(kwargs or {}))

    @contextmanager
    def paused(self) -> Generator[None, None, None]:
        """Operations inside a layer are the layer's."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def produced(self, module: nn.Module, output: Tensor) -> None:
        """A convolution gave this output."""
        self._calls.append(module)
        self._outputs[id(output)] = (output, module)
        self._consumers.setdefault(module, [])

    def consumed(self, tensor: Any, by: nn.Module | None) -> None:
        """A layer, or something unknown (None), uses this tensor."""
        if id(tensor) in self._outputs:
            self._consumers[self._outputs[id(tensor)][1]].append(by)
        if by is not None:
            self._calls.append(by)

    def pairs(self) -> dict[nn.Module, _BatchNorm]:
        """Convolution to the BatchNorm that alone uses its output; both run once."""
        found: dict[nn.Module, _BatchNorm] = {}
        for module, consumers in self._consumers.items():
            if len(consumers) != 1 or not isinstance(consumers[0], _BatchNorm):
                continue
            norm = consumers[0]
            once = self._calls.count(module) == self._calls.count(norm) == 1
            if once and not any(getattr(m, hooks) for m in (module, norm) for hooks in _HOOKS):
                found[module] = norm
        return found


class Folding:
    """The engine's memory of pairs."""

    def __init__(self) -> None:
        self.trace: Trace | None = None
        self._pairs: dict[nn.Module, _BatchNorm] | None = None

    @property
    def watched(self) -> bool:
        """Whether pairs are known."""
        return self._pairs is not None

    @contextmanager
    def watching(self) -> Generator[None, None, None]:
        """The forward pass that runs now shows the pairs."""
        try:
            with Trace() as self.trace:
                yield
            self._pairs = self.trace.pairs()
        finally:
            self.trace = None

    @contextmanager
    def layer(self, x: Tensor, module: nn.Module | None) -> Generator[None, None, None]:
        """A layer runs on this input; what it does inside is not watched."""
        if self.trace is None:
            yield
            return
        self.trace.consumed(x, module)
        with self.trace.paused():
            yield

    def give_up(self) -> None:
        """The model does not run as it did when it was watched."""
        self._pairs = {}

    def norm_of(self, module: nn.Module) -> _BatchNorm | None:
        """The BatchNorm that alone uses this convolution's output, if there is one."""
        return None if self._pairs is None else self._pairs.get(module)


def foldable(x: Tensor, *parameters: Tensor | None) -> bool:
    """Whether rounding stays what it was: one full precision throughout."""
    types = {t.dtype for t in (x, *parameters) if t is not None}
    return (
        len(types) == 1
        and types <= {torch.float32, torch.float64}
        and not (torch.is_autocast_enabled(x.device.type))
    )
