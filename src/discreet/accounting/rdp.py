"""The accountant by Rényi differential privacy."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import dp_accounting
import numpy as np
from dp_accounting.rdp.rdp_privacy_accountant import compute_delta, compute_epsilon
from numpy.typing import NDArray

from discreet import _validate
from discreet.accounting import _gaussian
from discreet.accounting._common import checked, plain_terms_of, refuse_replace_one, version_of
from discreet.accounting._gaussian import GaussianTerm
from discreet.accounting.events import Event
from discreet.privacy import NeighboringRelation

# dp-accounting sums up to about a thousand rounded terms per order and step.
_RDP_ROUNDING_PER_STEP = 1e-13


@dataclass(frozen=True, kw_only=True)
class RdpAccountant:
    """Rényi differential privacy (Mironov 2017; Mironov et al. 2019): looser, well known.

    Add-or-remove only. For replace-one there is no accounting of Poisson sampling, and the
    library reads a full-batch Gaussian event as if its noise were already relative to the doubled
    sensitivity, which would under-report ε by about a half.

    Raises:
        AccountingError: If the relation is not add-or-remove.
    """

    name: ClassVar[str] = "rdp"

    relation: NeighboringRelation = NeighboringRelation.ADD_OR_REMOVE_ONE

    def __post_init__(self) -> None:
        refuse_replace_one(self.relation, accountant=self.name)

    @property
    def version(self) -> str:
        """Library and version that the numbers come from."""
        return version_of("dp-accounting")

    def coarse(self) -> RdpAccountant:
        """Itself: it is fast as it is."""
        return self

    def epsilon(self, events: Sequence[Event], *, delta: float) -> float:
        """Smallest ε proven at δ; 0 if nothing ran, ∞ if a step had no noise.

        Raises:
            ConfigurationError: If δ is not strictly between 0 and 1.
            AccountingError: If an event has no accounting.
        """
        _validate.open_unit_interval(delta=delta)
        curve = self._curve(events)
        return 0.0 if curve is None else checked(float(compute_epsilon(*curve, delta)[0]))

    def delta(self, events: Sequence[Event], *, epsilon: float) -> float:
        """Smallest δ proven at ε; 0 if nothing ran, 1 if nothing better is known.

        Raises:
            ConfigurationError: If ε is negative or not finite.
            AccountingError: If an event has no accounting.
        """
        _validate.non_negative(epsilon=epsilon)
        curve = self._curve(events)
        return 0.0 if curve is None else checked(float(compute_delta(*curve, epsilon)[0]))

    def _curve(self, events: Sequence[Event]) -> tuple[list[float], list[float]] | None:
        """Orders and Rényi divergences of all that ran; None if nothing did."""
        terms = plain_terms_of(events, accountant=self.name)
        if not terms:
            return None
        library = dp_accounting.rdp.RdpAccountant()
        mu = _gaussian.unamplified_mu(terms, self.relation)
        if not math.isfinite(mu * mu):  # no noise, or so little that its square is zero
            return list(library.orders), [math.inf] * len(library.orders)
        parts = [t.steps * _one_step(t.noise_multiplier, t.sample_rate) for t in terms]
        # The library takes a divergence that rounding made negative for "ε = 0".
        steps = sum(term.steps for term in terms)
        rdp = np.maximum(np.sum(parts, axis=0), 0) + steps * _RDP_ROUNDING_PER_STEP
        return list(library.orders), list(rdp)


# Divergences add up: each kind of step is worked out once for all its steps.
@functools.lru_cache(maxsize=256)
def _one_step(noise_multiplier: float, sample_rate: float) -> NDArray[np.float64]:
    """Rényi divergences of one step at the library's orders."""
    term = GaussianTerm(noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=1)
    with _quiet_library():
        library = dp_accounting.rdp.RdpAccountant().compose(term.to_dp_event())
    return np.asarray(library.rdp)


@contextlib.contextmanager
def _quiet_library() -> Generator[None]:
    # For small noise the library logs every order that it leaves out. Leaving out an order can
    # only raise ε, so there is nothing to tell.
    def below_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    logger = logging.getLogger("absl")
    logger.addFilter(below_error)
    try:
        yield
    finally:
        logger.removeFilter(below_error)
