"""What a layer remembers of each example's gradient until the weighted sum is known.

B is the number of images, U of examples (units; images unless a `Units` says otherwise), P the
number of entries of one parameter.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

# Long float32 sums drift: over 300,000 entries a plain vector norm is off by 5e-6, more than the
# margin that clipping allows for. Over chunks of this length it is off by 1e-7, and is faster.
CHUNK = 2048
PRODUCT_ENTRIES = 500_000


@dataclass(frozen=True, kw_only=True)
class Units:
    """Which images belong to one privacy unit: their gradients add before norms are taken.

    Attributes:
        index: The unit of each image, int64 (B,), each in 0 … count - 1.
        count: U; a unit without images has a zero gradient.
    """

    index: Tensor
    count: int

    def sum(self, gradients: Tensor) -> Tensor:
        """Sums over the images of each unit: (B, *shape) to (U, *shape)."""
        total = gradients.new_zeros(self.count, *gradients.shape[1:])
        return total.index_add_(0, self.index, gradients)


class Record(Protocol):
    """Per-example gradients of one parameter, held or reproducible."""

    def squared_norms(self) -> Tensor:
        """Squared L2 norm of each example's gradient, float32 (U,)."""
        ...

    def weighted_sum(self, weights: Tensor, kept: Tensor | None = None) -> Tensor:
        """Sum over examples of weight × gradient, float32, of the parameter's shape.

        Args:
            weights: (U,).
            kept: Examples to sum over, bool (U,); all if None. A weight of 0 does not remove a
                gradient that is not finite, this does.
        """
        ...

    def per_example(self) -> Tensor:
        """All gradients, float32 (U, *shape)."""
        ...


def as_rows(gradients: Tensor) -> Tensor:
    """(U, *shape) to (U, P), entries in the order of memory; a scalar parameter has P = 1."""
    if gradients.dim() == 1:
        return gradients.unsqueeze(1)
    return gradients.permute(0, *_memory_order(gradients)).flatten(1)


def _memory_order(gradients: Tensor) -> tuple[int, ...]:
    """Dimensions of one gradient, outermost first; the parameter's first stays first.

    A convolution's gradients come with channels last; reordering all of them would cost a pass.
    """
    return (1, *sorted(range(2, gradients.dim()), key=lambda d: -gradients.stride(d)))


def row_products(gradients: Tensor, tensor: Tensor) -> Tensor:
    """Scalar products, over all dimensions but the first, of each gradient and one tensor.

    Args:
        gradients: (U, N, …), in any order of memory.
        tensor: (N, …).

    Returns:
        (U, N).
    """
    order = _memory_order(gradients)
    other = tensor.permute([d - 1 for d in order]).flatten(1)
    rows = gradients.permute(0, *order).flatten(2)
    result = rows.new_empty(rows.shape[:2])
    # Few at a time: the products stay in cache, and no large block is asked of the system.
    together = max(1, PRODUCT_ENTRIES // max(1, other.numel()))
    buffer = rows.new_empty(min(together, len(rows)), *other.shape)
    for start in range(0, len(rows), together):
        some = rows[start : start + together]
        products = torch.mul(some, other, out=buffer[: len(some)])
        torch.sum(products, 2, out=result[start : start + together])
    return result


def _from_row(row: Tensor, gradients: Tensor) -> Tensor:
    """A (P,) row in the order of memory, as a tensor of the parameter's shape."""
    if gradients.dim() == 1:
        return row.squeeze(0)
    order = _memory_order(gradients)
    ordered = row.view([gradients.shape[d] for d in order])
    return ordered.permute([order.index(d) for d in range(1, gradients.dim())])


def squared_norms(rows: Tensor) -> Tensor:
    """Squared L2 norm of each row, accurate to about 1e-7 for any length.

    Args:
        rows: (U, P), float32.

    Returns:
        (U,) float32.
    """
    length = rows.shape[1]
    whole = length // CHUNK * CHUNK
    if whole == 0:
        return torch.linalg.vector_norm(rows, dim=1).square()
    chunks = rows[:, :whole].unflatten(1, (-1, CHUNK))  # (U, P // CHUNK, CHUNK)
    total = torch.linalg.vector_norm(chunks, dim=2).square().sum(1)
    if whole < length:
        total = total + torch.linalg.vector_norm(rows[:, whole:], dim=1).square()
    return total


class Held:
    """All per-example gradients in memory: U × P float32 numbers.

    Args:
        gradients: (U, *shape), in any order of memory.
        scale: Factor of each entry of the parameter's first dimension, (shape[0],), or None for
            ones. Kept apart because scaling all U gradients would cost a pass over them.
    """

    def __init__(self, gradients: Tensor, scale: Tensor | None = None) -> None:
        self.gradients = gradients.float()
        self.scale = scale
        self._squared: Tensor | None = None

    def squared_norms(self) -> Tensor:
        """See `Record`."""
        if self._squared is None:
            self._squared = self._norms()
        return self._squared

    def _norms(self) -> Tensor:
        if self.scale is None:
            return squared_norms(as_rows(self.gradients))
        rows = as_rows(self.gradients).unflatten(1, (len(self.scale), -1))  # (U, shape[0], …)
        by_row = torch.linalg.vector_norm(rows, dim=2).square()
        return (by_row * self.scale.square()).sum(1)

    def weighted_sum(self, weights: Tensor, kept: Tensor | None = None) -> Tensor:
        """See `Record`."""
        gradients, weights = self.gradients, weights.float()
        if kept is not None:
            gradients, weights = gradients[kept], weights[kept]
        total = _from_row(weights @ as_rows(gradients), gradients)
        return total if self.scale is None else scaled(total, self.scale)

    def per_example(self) -> Tensor:
        """See `Record`."""
        if self.scale is None:
            return self.gradients.clone()  # the memory may be the next pass's soon
        return self.gradients * self.scale.view(1, -1, *[1] * (self.gradients.dim() - 2))


def scaled(tensor: Tensor, scale: Tensor) -> Tensor:
    """Multiply each entry of dimension 0 by its factor.

    Args:
        tensor: (N, *shape).
        scale: A factor for each entry, (N,).

    Returns:
        (N, *shape), a new tensor.
    """
    return tensor * scale.view(-1, *[1] * (tensor.dim() - 1))


class SideBySide:
    """Gradients of all small parameters as columns of one matrix.

    A detector has hundreds of small parameters. Each in a tensor of its own would cost a dozen
    operations, and leave small blocks in the memory that the backward pass frees, which would
    then not fit large ones.

    Args:
        parameters: The small ones, by dotted name.
        examples: U.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], examples: int) -> None:
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}
        self._lengths = [parameter.numel() for parameter in parameters.values()]
        device = next((p.device for p in parameters.values()), None)
        self._matrix = torch.zeros(examples, sum(self._lengths), device=device)
        columns = self._matrix.split(self._lengths, 1) if self._lengths else ()
        self._columns = dict(zip(parameters, columns, strict=True))

    def __contains__(self, name: str) -> bool:
        """Whether this parameter is one of the small ones."""
        return name in self._columns

    def add(self, name: str, gradients: Tensor) -> None:
        """Add to a parameter's gradients, (U, *shape)."""
        columns = self._columns[name]
        columns += gradients.reshape(columns.shape)

    def squared_norms(self) -> dict[str, Tensor]:
        """Squared L2 norm of each example's gradient, by name, float32 (U,)."""
        if not self._matrix.numel():
            return {name: self._matrix.new_zeros(len(self._matrix)) for name in self._columns}
        squares = self._matrix.double().square().t().contiguous()
        lengths = torch.tensor(self._lengths, device=squares.device)
        sums = torch.segment_reduce(squares, "sum", lengths=lengths, axis=0).float()
        return dict(zip(self._columns, sums, strict=True))

    def weighted_sums(
        self, weights: Mapping[str, Tensor], kept: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """By name; see `Record.weighted_sum`."""
        first = next(iter(self._columns), None)
        if first is None:
            return {}
        if all(weights[name] is weights[first] for name in self._columns):
            record = Held(self._matrix)  # one product for all
            row = record.weighted_sum(weights[first], kept.get(first))
            parts = dict(zip(self._columns, row.split(self._lengths), strict=True))
        else:
            parts = {
                name: Held(columns).weighted_sum(weights[name], kept.get(name))
                for name, columns in self._columns.items()
            }
        return {name: part.view(self._shapes[name]) for name, part in parts.items()}

    def per_example(self, name: str) -> Tensor:
        """All gradients of one parameter, float32 (U, *shape)."""
        return self._columns[name].reshape(-1, *self._shapes[name])


class RecordedGradients:
    """Per-example gradients of one pass, implementing `discreet.clipping.PerExampleGradients`.

    Args:
        parameters: All parameters asked for.
        records: Those that received a gradient; the others' gradients are zero.
        examples: U.
        small: Gradients of further parameters.
        memory: What keeps the memory of the records from being used again.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        records: Mapping[str, Record],
        examples: int,
        small: SideBySide | None = None,
        memory: object = None,
    ) -> None:
        self._parameters = parameters
        self._records = records
        self._examples = examples
        self._small = SideBySide({}, examples) if small is None else small
        self._memory = memory
        self._squared: dict[str, Tensor] | None = None

    @classmethod
    def of(
        cls,
        parameters: Mapping[str, nn.Parameter],
        gradients: Mapping[str, Tensor],
        images: int,
        units: Units | None,
    ) -> RecordedGradients:
        """From the gradients of B images, by name (B, *shape)."""
        if units is None:
            return cls(parameters, {name: Held(g) for name, g in gradients.items()}, images)
        held = {name: Held(units.sum(g)) for name, g in gradients.items()}
        return cls(parameters, held, units.count)

    def per_example(self, name: str) -> Tensor:
        """Gradients of one parameter, float32 (U, *shape)."""
        with self._plain_sums():
            if name in self._small:
                return self._small.per_example(name)
            if name in self._records:
                return self._records[name].per_example()
        parameter = self._parameters[name]
        return torch.zeros(self._examples, *parameter.shape, device=parameter.device)

    @property
    def squared_norms(self) -> Mapping[str, Tensor]:
        """Squared L2 norm of each example's gradient, per parameter: name to float32 (U,)."""
        if self._squared is None:
            with self._plain_sums():
                found = self._small.squared_norms()
                found |= {name: record.squared_norms() for name, record in self._records.items()}
            self._squared = {
                name: found[name]
                if name in found
                else torch.zeros(self._examples, device=parameter.device)
                for name, parameter in self._parameters.items()
            }
        return self._squared

    def weighted_sum(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sum over examples of weight × gradient, per parameter, in float32."""
        with self._plain_sums():
            kept = self._kept(weights)
            found = self._small.weighted_sums(weights, kept)
            for name, record in self._records.items():
                found[name] = record.weighted_sum(weights[name], kept.get(name))
            return {
                name: found[name]
                if name in found
                else torch.zeros_like(parameter, dtype=torch.float32, requires_grad=False)
                for name, parameter in self._parameters.items()
            }

    def _kept(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where a gradient is not finite: the examples whose weight is not zero."""
        squared = self.squared_norms
        if not squared or bool(torch.isfinite(torch.stack(list(squared.values())).sum())):
            return {}
        return {name: weight != 0 for name, weight in weights.items()}

    @contextmanager
    def _plain_sums(self) -> Generator[None, None, None]:
        """Sums are not differentiated, nor rounded to half precision by the caller's autocast."""
        devices = {parameter.device.type for parameter in self._parameters.values()}
        with torch.no_grad(), torch.autocast(next(iter(devices), "cpu"), enabled=False):
            yield
