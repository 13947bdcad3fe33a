"""Gaussian noise, once per logical step, on every trainable parameter.

The scale is noise multiplier × sensitivity, and the sensitivity is the one that the clipped sum
carries. Samples are hardened against floating-point attacks, see `hardened_normal`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from discreet import _validate
from discreet.clipping import ClippedSum
from discreet.randomness import RandomSource, hardened_normal

__all__ = ["DrawnAhead", "GaussianMechanism", "Mechanism", "hardened_normal"]


class Mechanism(Protocol):
    """Turns a clipped sum into a noised one."""

    def privatise(self, clipped: ClippedSum, source: RandomSource) -> dict[str, Tensor]:
        """See `GaussianMechanism.privatise`."""
        ...


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
        if self.noise_multiplier == 0:
            return {name: value.clone() for name, value in clipped.sums.items()}
        return {
            name: self._noised(
                value, clipped.sensitivity, hardened_normal(value.numel(), source.stream())
            )
            for name, value in clipped.sums.items()
        }

    def add(
        self, clipped: ClippedSum, normals: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, Tensor]:
        """The noised sum, from fresh standard normals; they are overwritten.

        Args:
            clipped: See `privatise`.
            normals: Name to (entries,), each used for nothing else.
        """
        return {
            name: self._noised(value, clipped.sensitivity, normals[name])
            for name, value in clipped.sums.items()
        }

    def _noised(self, value: Tensor, sensitivity: float, normals: NDArray[np.float64]) -> Tensor:
        normals *= self.standard_deviation(sensitivity)
        # The addition is float64; only the released value is rounded.
        noise = torch.from_numpy(normals).to(value.device).view(value.shape)
        return (noise + value.double()).to(value.dtype)


class DrawnAhead:
    """Standard normals that a thread draws while gradients are computed.

    Each draw is handed out once: what a failed step leaves behind is never used again.

    Args:
        source: Random streams; taken by the caller's thread, in the order of `entries`.
        entries: Name to size of every tensor of the sums. Above `most` in all, noise is drawn when
            it is needed, since it would wait in memory, eight bytes an entry.
        most: See above.
    """

    def __init__(
        self, source: RandomSource, entries: Mapping[str, int], *, most: int = 1 << 25
    ) -> None:
        self._source, self._entries = source, dict(entries)
        self._over = threading.Event()
        pays = 0 < sum(entries.values()) <= most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="noise") if pays else None
        self._next = self._begin()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Forget what was drawn, and end the thread."""
        if self._thread is not None:
            self._over.set()
            self._thread.shutdown(cancel_futures=True)
        self._next = None

    def scaled_by(self, mechanism: GaussianMechanism) -> Mechanism:
        """The mechanism of one step, on normals that are drawn already."""
        return mechanism if mechanism.noise_multiplier == 0 else _Ahead(mechanism, self)

    def take(self, names: Mapping[str, int]) -> dict[str, NDArray[np.float64]] | None:
        """Standard normals by name, to be used once; None where nothing is drawn ahead.

        Args:
            names: Name to size of the sums that they are for.

        Raises:
            RuntimeError: The sums have other names or sizes than `entries`.
        """
        drawn, self._next = self._next, None
        if drawn is None:
            return None
        if names != self._entries:
            raise RuntimeError("the sums are not those that noise was drawn for")
        normals = drawn.result()
        self._next = self._begin()
        return normals

    def _begin(self) -> Future[dict[str, NDArray[np.float64]]] | None:
        if self._thread is None:
            return None
        streams = {name: self._source.stream() for name in self._entries}
        return self._thread.submit(self._draw, streams)

    def _draw(self, streams: Mapping[str, np.random.Generator]) -> dict[str, NDArray[np.float64]]:
        drawn: dict[str, NDArray[np.float64]] = {}
        for name, entries in self._entries.items():
            if self._over.is_set():  # nobody will take them
                break
            drawn[name] = hardened_normal(entries, streams[name])
        return drawn


@dataclass(frozen=True)
class _Ahead:
    """A Gaussian mechanism whose normals come from a thread."""

    mechanism: GaussianMechanism
    normals: DrawnAhead

    def privatise(self, clipped: ClippedSum, source: RandomSource) -> dict[str, Tensor]:
        """See `GaussianMechanism.privatise`; `source` serves where nothing was drawn ahead."""
        taken = self.normals.take({name: value.numel() for name, value in clipped.sums.items()})
        if taken is None:
            return self.mechanism.privatise(clipped, source)
        return self.mechanism.add(clipped, taken)
