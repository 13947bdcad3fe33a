"""Run a convolution and the frozen BatchNorm behind it as one; see `rules.folded`.

That is right only where nobody else uses the convolution's output. So the output is not computed
at all: the convolution gives a `Deferred` in its place, a tensor of the right shape without
content, which its BatchNorm exchanges for the folded result. Whatever else touches it breaks the
pair: the pass is run once more without folding, and that convolution is never deferred again.

Which pairs are worth trying is found by watching one forward pass, in which outputs are deferred
too, but have content for those who ask.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.modules.module as torch_module
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.utils import _pytree as pytree

from discreet.errors import UnsupportedLayerError

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# What may be asked of a tensor without content: its shape and kind are those of the output.
_METADATA = {
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.is_floating_point),
    *(getattr(Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device", "layout")),
}


class Deferred(Tensor):
    """A tensor that is computed when it is asked for, if it may be.

    Every operation is seen: those of Python by `__torch_function__`, others (TorchScript, custom
    functions, C++) by `__torch_dispatch__`, below autograd.

    Attributes:
        resolve: Gives the tensor to a layer, or to something unknown (None); raises if that has
            no right to it.
        folded: Whether what a BatchNorm gets is normalised already.
    """

    resolve: Callable[[nn.Module | None], Tensor]
    folded: bool

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Someone who is not the BatchNorm uses the tensor."""
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():  # pyright: ignore[reportPrivateUsage]
                return func(*args, **(kwargs or {}))
        return _resolved(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Someone uses the tensor who cannot be seen from Python."""
        return _resolved(func, args, kwargs or {})


def deferred(
    shape: Iterable[int],
    like: Tensor,
    resolve: Callable[[nn.Module | None], Tensor],
    *,
    folded: bool = False,
) -> Deferred:
    """Make a `Deferred`, which has no memory.

    Args:
        shape: Its shape.
        like: Has its dtype and device.
        resolve: See `Deferred`.
        folded: See `Deferred`.
    """
    made = Deferred._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
        Deferred, torch.Size(shape), dtype=like.dtype, device=like.device
    )
    made.resolve, made.folded = resolve, folded
    return made


def _resolved(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    def give(leaf: Any) -> Any:
        return leaf.resolve(None) if isinstance(leaf, Deferred) else leaf

    args, kwargs = pytree.tree_map(give, (args, kwargs))
    return func(*args, **kwargs)


class _Watch:
    """What one forward pass shows."""

    def __init__(self) -> None:
        self.calls: Counter[nn.Module] = Counter()
        self.norms: dict[nn.Module, nn.Module] = {}
        self.elsewhere: set[nn.Module] = set()
        self.alive: list[tuple[nn.Module, weakref.ref[Deferred]]] = []

    def pairs(self) -> dict[nn.Module, _BatchNorm]:
        """Convolution to the BatchNorm that alone used its output; both ran once."""
        # An output that someone keeps may be read after the pass.
        self.elsewhere.update(module for module, output in self.alive if output() is not None)
        return {
            module: norm
            for module, norm in self.norms.items()
            if module not in self.elsewhere
            and isinstance(norm, _BatchNorm)
            and self.calls[module] == self.calls[norm] == 1
        }


class Folding:
    """The engine's memory of pairs.

    Attributes:
        broken: Whether someone else asked for a deferred output in this pass.
    """

    def __init__(self) -> None:
        self.broken = False
        self._watch: _Watch | None = None
        self._pairs: dict[nn.Module, _BatchNorm] | None = None
        self._apart: set[nn.Module] = set()
        self._off = False

    @property
    def watched(self) -> bool:
        """Whether pairs are known."""
        return self._pairs is not None

    @property
    def watching(self) -> bool:
        """Whether the forward pass that runs now is to show the pairs."""
        return self._watch is not None

    @contextmanager
    def watch(self) -> Generator[None, None, None]:
        """The forward pass that runs now shows the pairs."""
        try:
            self._watch = _Watch()
            yield
            self._pairs = self._watch.pairs()
        finally:
            self._watch = None

    @contextmanager
    def off(self) -> Generator[None, None, None]:
        """No pair is folded meanwhile."""
        self._off, self.broken = True, False
        try:
            yield
        finally:
            self._off = False

    def forget(self) -> None:
        """The model is another one now."""
        self._pairs = None

    def give_up(self) -> None:
        """The model cannot be watched."""
        self._pairs = {}

    def part(self, layer: str, module: nn.Module) -> UnsupportedLayerError:
        """Someone else uses the output of a folded convolution: never fold it again.

        Args:
            layer: Dotted name.
            module: The convolution.

        Returns:
            The error, in case the pass is over and cannot be run again.
        """
        self.broken, self._pairs = True, None
        self._apart.add(module)
        return UnsupportedLayerError(
            "its output was not computed, since its BatchNorm was folded into it",
            where=layer,
            do="read it while the losses are computed; the next pass will compute it",
        )

    def show(self, module: nn.Module, output: Tensor) -> Tensor:
        """While watching: a convolution gave this output; see who takes it."""
        watch = self._watch
        assert watch is not None
        watch.calls[module] += 1

        def resolve(by: nn.Module | None) -> Tensor:
            if by is None or watch.norms.setdefault(module, by) is not by:
                watch.elsewhere.add(module)
            return output

        shown = deferred(output.shape, output, resolve)
        watch.alive.append((module, weakref.ref(shown)))
        return shown

    def ran(self, norm: nn.Module) -> None:
        """A BatchNorm runs."""
        if self._watch is not None:
            self._watch.calls[norm] += 1

    def norm_of(self, module: nn.Module) -> _BatchNorm | None:
        """The BatchNorm to fold into this convolution in this pass, if there is one."""
        if not self._pairs or self._off or not torch.is_grad_enabled():
            return None
        norm = self._pairs.get(module)
        if norm is None or module in self._apart or _hooked(module) or _hooked(norm):
            return None
        return norm


def _hooked(module: nn.Module) -> bool:
    """Whether a hook could keep the output, to be read after the pass."""
    return any(vars(module)[hooks] for hooks in _HOOKS) or any(
        vars(torch_module)[f"_global{hooks}"] for hooks in _HOOKS
    )


def foldable(x: Tensor, *parameters: Tensor | None) -> bool:
    """Whether rounding stays what it was: one full precision throughout."""
    types = {t.dtype for t in (x, *parameters) if t is not None}
    return (
        len(types) == 1
        and types <= {torch.float32, torch.float64}
        and not (torch.is_autocast_enabled(x.device.type))
    )
