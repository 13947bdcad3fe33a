"""The accountant by privacy random variables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from discreet import _validate
from discreet.accounting import _gaussian, _prv
from discreet.accounting._common import plain_terms_of, refuse_replace_one, version_of
from discreet.accounting.events import Event
from discreet.accounting.pld import PldAccountant
from discreet.privacy import NeighboringRelation


@dataclass(frozen=True, kw_only=True)
class PrvAccountant:
    """Privacy random variables (Gopi, Lee and Wutschitz 2021), by Opacus: a second opinion.

    Independent of the pld accountant in method and code. Its upper end is reported, about 0.01
    above its own estimate of ε. Add-or-remove only, and no truncated samples.

    Attributes:
        relation: The neighbouring relation.
        epsilon_error: Error in ε that the mesh is chosen for; it is part of the result.

    Raises:
        AccountingError: If the relation is not add-or-remove.
    """

    name: ClassVar[str] = "prv"

    relation: NeighboringRelation = NeighboringRelation.ADD_OR_REMOVE_ONE
    epsilon_error: float = _prv.EPSILON_ERROR

    def __post_init__(self) -> None:
        refuse_replace_one(self.relation, accountant=self.name)

    @property
    def version(self) -> str:
        """Library and version that the numbers come from."""
        return version_of("opacus")

    def coarse(self) -> PldAccountant:
        """The pld accountant on its coarse grid: Opacus' mesh has no form as cheap as that."""
        return PldAccountant(relation=self.relation).coarse()

    def epsilon(self, events: Sequence[Event], *, delta: float) -> float:
        """Smallest ε proven at δ; 0 if nothing ran, ∞ if a step had no noise.

        Raises:
            ConfigurationError: If δ is not strictly between 0 and 1.
            AccountingError: If an event has no accounting, or the numerics fail.
        """
        _validate.open_unit_interval(delta=delta)
        terms = plain_terms_of(events, accountant=self.name)
        if not terms:
            return 0.0
        if not self._has_noise(terms):
            return math.inf
        return _prv.prv_epsilon(terms, delta=delta, epsilon_error=self.epsilon_error)

    def delta(self, events: Sequence[Event], *, epsilon: float) -> float:
        """Smallest δ proven at ε; 0 if nothing ran, 1 if nothing better is known.

        Raises:
            ConfigurationError: If ε is negative or not finite.
            AccountingError: If an event has no accounting, or the numerics fail.
        """
        _validate.non_negative(epsilon=epsilon)
        terms = plain_terms_of(events, accountant=self.name)
        if not terms:
            return 0.0
        if not self._has_noise(terms):
            return 1.0
        return _prv.prv_delta(terms, epsilon=epsilon, epsilon_error=self.epsilon_error)

    def _has_noise(self, terms: Sequence[_gaussian.GaussianTerm]) -> bool:
        mu = _gaussian.unamplified_mu(terms, self.relation)
        return math.isfinite(mu * mu)
