"""Per-unit gradients as plain tensors, and how far two tensors are apart.

B is the number of units of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from discreet.clipping import PerExampleGradients


class Held:
    """Per-unit gradients as plain tensors; the engine may reuse its memory.

    Args:
        rows: Name to float32 (B, *shape).
    """

    def __init__(self, rows: Mapping[str, Tensor]) -> None:
        self.rows = dict(rows)
        self._norms: dict[str, Tensor] = {}

    @property
    def squared_norms(self) -> Mapping[str, Tensor]:
        """See `PerExampleGradients`; sums in float64."""
        self._norms = self._norms or {
            name: row.flatten(1).double().pow(2).sum(1).float() for name, row in self.rows.items()
        }
        return self._norms

    def weighted_sum(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `PerExampleGradients`."""
        return {
            name: sum(
                (float(w) * row for w, row in zip(weights[name], rows, strict=True) if w != 0),
                torch.zeros_like(rows[0]) if len(rows) else rows.new_zeros(rows.shape[1:]),
            )
            for name, rows in self.rows.items()
        }

    def only(self, *positions: int) -> Held:
        """Some of the units, in this order."""
        return Held({name: rows[list(positions)] for name, rows in self.rows.items()})

    def times(self, *factors: float) -> Held:
        """Each unit's gradient times a factor of its own."""
        return Held(
            {
                name: row * row.new_tensor(factors).view(-1, *(1,) * (row.dim() - 1))
                for name, row in self.rows.items()
            }
        )

    def with_first_entry_times(self, *factors: float) -> Held:
        """One entry of each unit's gradient times a factor, to spoil it."""
        name, first = next(iter(self.rows.items()))
        spoilt = first.reshape(len(first), -1).clone()
        spoilt[:, 0] *= spoilt.new_tensor(factors)
        return Held({**self.rows, name: spoilt.view(first.shape)})

    def flat(self, position: int) -> Tensor:
        """One unit's whole gradient, (all P,)."""
        return torch.cat([rows[position].flatten() for rows in self.rows.values()])

    def norm(self, position: int) -> float:
        """Norm of one unit's whole gradient."""
        return float(self.flat(position).double().norm())


def hold(found: PerExampleGradients, norms: Mapping[str, Tensor]) -> Held:
    """Copy gradients out of an engine's memory, by its own weighted sums.

    Args:
        found: What the engine gave.
        norms: Its squared norms, name to (B,).
    """
    any_norm = next(iter(norms.values()))
    columns: dict[str, list[Tensor]] = {name: [] for name in norms}
    for unit in range(len(any_norm)):
        weight = torch.zeros_like(any_norm, dtype=torch.float32)
        weight[unit] = 1.0
        for name, value in found.weighted_sum(dict.fromkeys(norms, weight)).items():
            columns[name].append(value.detach().float().clone())
    return Held({name: torch.stack(rows) for name, rows in columns.items()})


def relative(a: Tensor, b: Tensor) -> float:
    """‖a − b‖ / max(‖a‖, ‖b‖); 0 where both are zero or not finite in the same places."""
    a, b = a.detach().double().flatten(), b.detach().double().flatten()
    if a.shape != b.shape or not torch.equal(torch.isfinite(a), torch.isfinite(b)):
        return float("inf")
    a, b = (torch.where(torch.isfinite(x), x, torch.zeros_like(x)) for x in (a, b))
    scale = max(float(a.norm()), float(b.norm()))
    return float((a - b).norm()) / scale if scale > 0 else 0.0
