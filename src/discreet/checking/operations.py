"""Counts what a forward pass costs, so that a check knows how large a batch it can afford."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Operations(TorchDispatchMode):
    """Counts floating-point operations of the matrix products and convolutions run meanwhile.

    The number depends on shapes only, unlike a time: a check does the same on every machine.

    Attributes:
        total: The count so far, two per multiplication with addition.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operation and count it."""
        kwargs = dict(kwargs or {})
        output = func(*args, **kwargs)
        count = flop_registry.get(getattr(func, "_overloadpacket", None))
        if count is not None:
            self.total += count(*args, **kwargs, out_val=output)
        return output
