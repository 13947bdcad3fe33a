"""Gradient canaries: units whose gradient is one coordinate, put into the real clipped sum.

A canary is a privacy unit like an image: the Poisson sampler draws it, the run's clipping rule
clips it, the run's noise covers it. It asks more than its share, a gradient of several times the
clip norm, so that a run that does not clip is found out. Each has a coordinate of its own: no
canary blurs another.

All m canaries are counted in the population n, whether their coin says "in" or not. Counting only
those that are in would tell the sum of the coins, and a sample rate must not depend on a secret.

Shape legend: m canaries, k drawn ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from discreet.auditing.one_run import Guessing, correct_guesses, refuted_epsilon
from discreet.auditing.scores import CanaryScores
from discreet.clipping import PerExampleGradients
from discreet.errors import ConfigurationError
from discreet.randomness import RandomSource

GREED = 10.0
ADVERSARY = (
    "sees the noised sum of every step, knows every image and which were drawn; does not know the "
    "canaries' coins nor when they were drawn"
)
_REHEARSALS = 5


def fair_coins(count: int, source: RandomSource) -> NDArray[np.bool_]:
    """Independent fair coins, bool (count,)."""
    return source.stream().integers(0, 2, size=count, dtype=np.uint8).astype(np.bool_)


@dataclass(frozen=True, kw_only=True, eq=False)
class GradientCanaries:
    """m canaries on coordinates of their own.

    Attributes:
        places: Parameter name to the canaries on it and their flat index there, each int64.
        included: The coins, bool (m,). Secret until the run is over.
        norm: L2 norm of a canary's gradient before clipping.
    """

    places: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]]
    included: NDArray[np.bool_]
    norm: float

    @classmethod
    def place(
        cls,
        parameters: Mapping[str, Tensor],
        count: int,
        *,
        max_grad_norm: float,
        source: RandomSource,
    ) -> Self:
        """Put canaries on random distinct coordinates and toss their coins.

        Args:
            parameters: What trains, by name.
            count: Number of canaries m.
            max_grad_norm: Clip norm of the run; a canary asks `GREED` times as much.
            source: Tosses the coins. They must be as secret as the noise.

        Raises:
            ConfigurationError: There are fewer coordinates than canaries.
        """
        sizes = [parameter.numel() for parameter in parameters.values()]
        if count > sum(sizes):
            raise ConfigurationError(
                f"{count:,} canaries need as many trained coordinates, and there are "
                f"{sum(sizes):,}",
                where="canaries",
                do=f"use canaries={sum(sizes)} or less",
            )
        chosen = np.sort(source.stream().choice(sum(sizes), size=count, replace=False))
        ends = np.cumsum(sizes)
        places: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        for name, size, end in zip(parameters, sizes, ends, strict=True):
            here = np.flatnonzero((chosen >= end - size) & (chosen < end)).astype(np.int64)
            places[name] = here, (chosen[here] - (end - size)).astype(np.int64)
        return cls(places=places, included=fair_coins(count, source), norm=GREED * max_grad_norm)

    def __len__(self) -> int:
        return len(self.included)

    def gradients(self, drawn: NDArray[np.int64], like: Mapping[str, Tensor]) -> CanaryGradients:
        """Per-unit gradients of drawn canaries, those whose coin says "out" left away.

        Args:
            drawn: Numbers of the canaries that the sampler drew.
            like: Parameters by name: shapes and device of the sums.
        """
        return CanaryGradients(self, drawn[self.included[drawn]], like)

    def read(self, sums: Mapping[str, Tensor]) -> NDArray[np.float64]:
        """A sum's entries at the canaries' coordinates, float64 (m,)."""
        found = np.zeros(len(self))
        for name, (canaries, index) in self.places.items():
            if len(canaries):
                flat = sums[name].detach().reshape(-1)
                found[canaries] = flat[torch.from_numpy(index).to(flat.device)].double().cpu()
        return found


class CanaryGradients:
    """Gradients of drawn canaries, as a clipping rule wants them: see `PerExampleGradients`."""

    def __init__(
        self, canaries: GradientCanaries, drawn: NDArray[np.int64], like: Mapping[str, Tensor]
    ) -> None:
        self._canaries, self._like = canaries, like
        row_of = np.full(len(canaries), -1)
        row_of[drawn] = np.arange(len(drawn))
        self._count = len(drawn)
        self._rows: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        for name, (here, index) in canaries.places.items():
            mine = row_of[here] >= 0
            self._rows[name] = row_of[here][mine].astype(np.int64), index[mine]

    @property
    def squared_norms(self) -> Mapping[str, Tensor]:
        """Name to float32 (k,)."""
        found: dict[str, Tensor] = {}
        for name, parameter in self._like.items():
            squares = torch.zeros(self._count, device=parameter.device)
            squares[torch.from_numpy(self._rows[name][0]).to(squares.device)] = (
                self._canaries.norm**2
            )
            found[name] = squares
        return found

    def weighted_sum(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Name to tensor of the parameter's shape; zero but at the drawn canaries' coordinates."""
        sums: dict[str, Tensor] = {}
        for name, parameter in self._like.items():
            total = torch.zeros(parameter.numel(), device=parameter.device)
            rows, index = (torch.from_numpy(part).to(total.device) for part in self._rows[name])
            total[index] = self._canaries.norm * weights[name][rows]
            sums[name] = total.view(parameter.shape)
        return sums


def step_evidence(
    observed: NDArray[np.float64], *, noise_multiplier: float, sample_rate: float
) -> NDArray[np.float64]:
    """Log-likelihood ratio of "in" against "out" after one step.

    With σ the noise multiplier and q the sample rate, an included canary gives N(1, σ²) with
    probability q and N(0, σ²) otherwise. By the Neyman-Pearson lemma no other function of the
    observation separates the two better; over steps the ratios add up.

    Args:
        observed: The noised sum at the canary's coordinate over the clip norm, (m,).
        noise_multiplier: σ of the claim, > 0.
        sample_rate: q of the claim.
    """
    drawn = (2 * observed - 1) / (2 * noise_multiplier**2)
    not_drawn = math.log1p(-sample_rate) if sample_rate < 1 else -math.inf
    return np.logaddexp(not_drawn, math.log(sample_rate) + drawn)


class CanaryWatch:
    """Watches a run's noised sums and gathers evidence on each canary.

    Args:
        canaries: The canaries in the run.
        max_grad_norm: Clip norm C of the claim.
        noise_multiplier: σ of the claim.
        sample_rate: q of the claim.
    """

    def __init__(
        self,
        canaries: GradientCanaries,
        *,
        max_grad_norm: float,
        noise_multiplier: float,
        sample_rate: float,
    ) -> None:
        if noise_multiplier <= 0:
            raise ConfigurationError(
                "a run without noise claims no ε that an audit could refute",
                where="noise_multiplier",
                do="audit a run with noise",
            )
        self._canaries, self._max_grad_norm = canaries, max_grad_norm
        self._noise_multiplier, self._sample_rate = noise_multiplier, sample_rate
        self.begin()

    def begin(self) -> None:
        """Forget all evidence: the run's first step is next."""
        self._others = np.zeros(len(self._canaries))
        self._evidence = np.zeros(len(self._canaries))
        self.steps = 0

    def images(self, gradients: PerExampleGradients) -> PerExampleGradients:
        """The images' gradients as they are; what they add to the sum is known to the adversary."""
        return _Known(gradients, self._add_known)

    def _add_known(self, sums: Mapping[str, Tensor]) -> None:
        self._others += self._canaries.read(sums)

    def step(self, noised: Mapping[str, Tensor]) -> None:
        """Take note of the noised sum of a step, before it is divided."""
        observed = (self._canaries.read(noised) - self._others) / self._max_grad_norm
        self._evidence += step_evidence(
            observed, noise_multiplier=self._noise_multiplier, sample_rate=self._sample_rate
        )
        self._others[:] = 0
        self.steps += 1

    def scores(self) -> CanaryScores:
        """The evidence so far, with the coins: during a run or after it."""
        return CanaryScores(
            # Evidence may overflow where nothing hides a canary: that is sure enough.
            scores=np.clip(self._evidence, -1e300, 1e300),
            included=self._canaries.included,
            centre=0.0,
        )


class _Known:
    def __init__(
        self, inner: PerExampleGradients, seen: Callable[[Mapping[str, Tensor]], None]
    ) -> None:
        self._inner, self._seen = inner, seen

    @property
    def squared_norms(self) -> Mapping[str, Tensor]:
        return self._inner.squared_norms

    def weighted_sum(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sums = self._inner.weighted_sum(weights)
        self._seen(sums)
        return sums


def rehearsed_guesses(
    canaries: int,
    *,
    noise_multiplier: float,
    sample_rate: float,
    steps: int,
    delta: float,
    stream: np.random.Generator,
) -> tuple[Guessing, ...]:
    """Ways of guessing that suit a mechanism, from made-up coins, before the real ones are seen.

    Args:
        canaries: Number of canaries m.
        noise_multiplier: σ of the claim.
        sample_rate: q of the claim.
        steps: Steps T of the claim.
        delta: δ of the claim.
        stream: Draws the rehearsals.

    Returns:
        The number of guesses that did best in rehearsal; and, for a run that is not what it
        claims, the highest three eighths, of the half that is in.
    """
    numbers = sorted({max(1, round(canaries * share)) for share in 2.0 ** -np.arange(8)})
    ways = [Guessing(number=number) for number in numbers if number >= min(canaries, 16)]
    right = np.zeros((_REHEARSALS, len(ways)), dtype=np.int64)
    for rehearsal in range(_REHEARSALS):
        coins = stream.random(canaries) < 0.5
        evidence = np.zeros(canaries)
        for _ in range(steps):
            drawn = coins & (stream.random(canaries) < sample_rate)
            observed = drawn + noise_multiplier * stream.standard_normal(canaries)
            evidence += step_evidence(
                observed, noise_multiplier=noise_multiplier, sample_rate=sample_rate
            )
        made_up = CanaryScores(scores=evidence, included=coins, centre=0.0)
        right[rehearsal] = [correct_guesses(made_up, way) for way in ways]
    gained = [
        refuted_epsilon(
            delta=delta,
            canaries=canaries,
            guesses=way.number,
            correct=int(typical),
            significance=0.025,
        )
        for way, typical in zip(ways, np.median(right, axis=0), strict=True)
    ]
    best = ways[int(np.argmax(gained))]
    return best, Guessing(number=max(1, 3 * canaries // 8), highest=True)
