"""The accountant by privacy loss distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from discreet import _validate
from discreet.accounting import _gaussian, _pld
from discreet.accounting._common import checked, terms_of, version_of
from discreet.accounting.events import Event
from discreet.privacy import NeighboringRelation


@dataclass(frozen=True, kw_only=True)
class PldAccountant:
    """Privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022): the tight one.

    Full-batch steps alone use the closed form of the Gaussian mechanism, exact and instant.
    Sampled steps are composed on a grid, rounded towards more loss; where the closed form
    without amplification is smaller (or the grid unaffordable, at an ε in the tens of
    thousands), it is the answer.

    Attributes:
        relation: The neighbouring relation; both are supported.
        coarse_grid: Whether to take the faster, looser grid.
    """

    name: ClassVar[str] = "pld"

    relation: NeighboringRelation = NeighboringRelation.ADD_OR_REMOVE_ONE
    coarse_grid: bool = False

    @property
    def version(self) -> str:
        """Library and version that the numbers come from."""
        return version_of("dp-accounting")

    def coarse(self) -> PldAccountant:
        """The same accountant on a coarser grid."""
        return PldAccountant(relation=self.relation, coarse_grid=True)

    def epsilon(self, events: Sequence[Event], *, delta: float) -> float:
        """Smallest ε proven at δ; 0 if nothing ran, ∞ if a step had no noise.

        Raises:
            ConfigurationError: If δ is not strictly between 0 and 1.
            AccountingError: If an event has no accounting.
        """
        _validate.open_unit_interval(delta=delta)
        terms = terms_of(events)
        mu = _gaussian.unamplified_mu(terms, self.relation)
        bound = _gaussian.gaussian_epsilon(mu, delta=delta)
        composed = self._compose_sampled(terms, mu)
        return checked(bound if composed is None else min(bound, composed.epsilon(delta=delta)))

    def delta(self, events: Sequence[Event], *, epsilon: float) -> float:
        """Smallest δ proven at ε; 0 if nothing ran, 1 if nothing better is known.

        Raises:
            ConfigurationError: If ε is negative or not finite.
            AccountingError: If an event has no accounting.
        """
        _validate.non_negative(epsilon=epsilon)
        terms = terms_of(events)
        mu = _gaussian.unamplified_mu(terms, self.relation)
        bound = _gaussian.gaussian_delta(mu, epsilon=epsilon)
        composed = self._compose_sampled(terms, mu)
        return checked(bound if composed is None else min(bound, composed.delta(epsilon=epsilon)))

    def _compose_sampled(
        self, terms: Sequence[_gaussian.GaussianTerm], mu: float
    ) -> _pld.ComposedLoss | None:
        # Without a sampled step the closed form is exact; without noise nothing helps.
        if not math.isfinite(mu * mu) or all(term.closed for term in terms):
            return None
        return _pld.compose(terms, relation=self.relation, coarse=self.coarse_grid)
