"""Gaussian noise, once per logical step, on every trainable parameter.

The scale is noise multiplier × sensitivity, and the sensitivity is the one that the clipped sum
carries. Samples are hardened against floating-point attacks: the sum of four independent
float64 normals, halved, so that no single output reveals the generator's state (Holohan and
Braghin, "Secure Random Sampling in Differential Privacy", 2021, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from discreet import _validate
from discreet.clipping import ClippedSum
from discreet.randomness import RandomSource

_CHUNK = 1 << 18  # 2 MiB of float64: stays in cache, bounds the extra memory


def hardened_normal(count: int, stream: np.random.Generator) -> NDArray[np.float64]:
    """Standard normal float64 samples, each the sum of four normals, halved; shape (count,)."""
    out = np.empty(count)
    for start in range(0, count, _CHUNK):
        part = out[start : start + _CHUNK]
        stream.standard_normal(out=part)
        for _ in range(3):
            part += stream.standard_normal(len(part))
        part *= 0.5
    return out


@dataclass(frozen=True, kw_only=True)
class GaussianMechanism:
    """Adds N(0, (noise_multiplier · sensitivity)²) to every coordinate (Dwork and Roth, A.1).

    Attributes:
        noise_multiplier: Standard deviation relative to the sensitivity; 0 adds nothing and
            gives no privacy.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        _validate.non_negative(noise_multiplier=self.noise_multiplier)

    def standard_deviation(self, sensitivity: float) -> float:
        """Standard deviation of the noise on each coordinate of the sum."""
        return self.noise_multiplier * sensitivity

    def privatise(self, clipped: ClippedSum, source: RandomSource) -> dict[str, Tensor]:
        """The noised sum: every tensor of `clipped` gets noise, zeros included.

        Args:
            clipped: The whole logical step's sum.
            source: Gives one stream per tensor.

        Returns:
            Name to new tensor, of the shape, dtype and device of the sum's.
        """
        deviation = self.standard_deviation(clipped.sensitivity)
        noised: dict[str, Tensor] = {}
        for name, value in clipped.sums.items():
            if deviation == 0:
                noised[name] = value.clone()
                continue
            noise = hardened_normal(value.numel(), source.stream())
            noise *= deviation
            # The addition is float64; only the released value is rounded.
            total = torch.from_numpy(noise).to(value.device).view(value.shape) + value.double()
            noised[name] = total.to(value.dtype)
        return noised
