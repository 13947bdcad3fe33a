"""What a layer remembers of each image's gradient until the weighted sum is known.

B is the number of images, P the number of entries of one parameter.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

# Long float32 sums drift: over 300,000 entries a plain vector norm is off by 5e-6, more than the
# margin that clipping allows for. Over chunks of this length it is off by 1e-7, and is faster.
CHUNK = 2048


class Record(Protocol):
    """Per-image gradients of one parameter, held or reproducible."""

    def squared_norms(self) -> Tensor:
        """Squared L2 norm of each image's gradient, float32 (B,)."""
        ...

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Sum over images of weight × gradient, float32, of the parameter's shape.

        A weight of exactly 0 removes an image even where its gradient is not finite.
        """
        ...

    def per_image(self) -> Tensor:
        """All gradients, float32 (B, *shape)."""
        ...


def as_rows(gradients: Tensor) -> Tensor:
    """(B, *shape) to (B, P); a scalar parameter has P = 1."""
    return gradients.flatten(1) if gradients.dim() > 1 else gradients.unsqueeze(1)


def squared_norms(rows: Tensor) -> Tensor:
    """Squared L2 norm of each row, accurate to about 1e-7 for any length.

    Args:
        rows: (B, P), float32.

    Returns:
        (B,) float32.
    """
    length = rows.shape[1]
    whole = length // CHUNK * CHUNK
    if whole == 0:
        return torch.linalg.vector_norm(rows, dim=1).square()
    chunks = rows[:, :whole].unflatten(1, (-1, CHUNK))  # (B, P // CHUNK, CHUNK)
    total = torch.linalg.vector_norm(chunks, dim=2).square().sum(1)
    if whole < length:
        total = total + torch.linalg.vector_norm(rows[:, whole:], dim=1).square()
    return total


def dangerous(weights: Tensor, squared: Tensor) -> bool:
    """Whether some image has weight 0 and a gradient that 0 × gradient would not remove."""
    # One sum says whether all are finite; few steps ask for more.
    if torch.isfinite(squared.sum()):
        return False
    return bool(((weights == 0) & ~torch.isfinite(squared)).any())


class Held:
    """All per-image gradients in memory: B × P float32 numbers.

    Args:
        gradients: (B, *shape).
        scale: Factor of each entry of the parameter's first dimension, (shape[0],), or None for
            ones. Kept apart because scaling all B gradients would cost a pass over them.
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
        rows = self.gradients.flatten(2)  # (B, shape[0], P / shape[0])
        by_row = torch.linalg.vector_norm(rows, dim=2).square()
        return (by_row * self.scale.square()).sum(1)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """See `Record`."""
        gradients, weights = self.gradients, weights.float()
        if dangerous(weights, self.squared_norms()):
            kept = weights != 0
            gradients, weights = gradients[kept], weights[kept]
        total = (weights @ as_rows(gradients)).view(gradients.shape[1:])
        return total if self.scale is None else scaled(total, self.scale)

    def per_image(self) -> Tensor:
        """See `Record`."""
        if self.scale is None:
            return self.gradients
        return self.gradients * self.scale.view(1, -1, *[1] * (self.gradients.dim() - 2))


def scaled(tensor: Tensor, scale: Tensor) -> Tensor:
    """Multiply each entry of dimension 0 by its factor."""
    return tensor * scale.view(-1, *[1] * (tensor.dim() - 1))


class RecordedGradients:
    """Per-example gradients of one pass, implementing `discreet.clipping.PerExampleGradients`.

    Args:
        parameters: All parameters asked for.
        records: Those that received a gradient; the others' gradients are zero.
        images: B.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], records: Mapping[str, Record], images: int
    ) -> None:
        self._parameters = parameters
        self._records = records
        self._images = images
        self._squared: dict[str, Tensor] | None = None

    def per_image(self, name: str) -> Tensor:
        """Gradients of one parameter, float32 (B, *shape)."""
        if name in self._records:
            with self._plain_sums():
                return self._records[name].per_image()
        parameter = self._parameters[name]
        return torch.zeros(self._images, *parameter.shape, device=parameter.device)

    @property
    def squared_norms(self) -> Mapping[str, Tensor]:
        """Squared L2 norm of each image's gradient, per parameter: name to float32 (B,)."""
        if self._squared is None:
            with self._plain_sums():
                self._squared = {
                    name: self._records[name].squared_norms()
                    if name in self._records
                    else torch.zeros(self._images, device=parameter.device)
                    for name, parameter in self._parameters.items()
                }
        return self._squared

    def weighted_sum(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sum over images of weight × gradient, per parameter, in float32."""
        with self._plain_sums():
            return {
                name: self._records[name].weighted_sum(weights[name])
                if name in self._records
                else torch.zeros_like(parameter, dtype=torch.float32, requires_grad=False)
                for name, parameter in self._parameters.items()
            }

    @contextmanager
    def _plain_sums(self) -> Generator[None, None, None]:
        """Sums are not differentiated, nor rounded to half precision by the caller's autocast."""
        devices = {parameter.device.type for parameter in self._parameters.values()}
        with torch.no_grad(), torch.autocast(next(iter(devices), "cpu"), enabled=False):
            yield
