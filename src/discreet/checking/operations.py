"""What a forward pass costs, and how coarsely it computes.

A check thereby knows how large a batch it can afford, and what may be rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Operations(TorchDispatchMode):
    """Counts floating-point operations of the matrix products and convolutions run meanwhile.

    The number depends on shapes only, unlike a time: a check does the same on every machine.

    Attributes:
        total: The count so far, two per multiplication with addition.
        coarsest: Largest machine epsilon of what they were given: that of bfloat16 under autocast.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total, self.coarsest = 0, 0.0

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
            given = (t for t in pytree.tree_leaves(args) if isinstance(t, Tensor))
            sizes = [torch.finfo(t.dtype).eps for t in given if t.is_floating_point()]
            self.coarsest = max(self.coarsest, *sizes, 0.0)
        return output
