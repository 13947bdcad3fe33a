"""From events to (ε, δ). Every number returned is an upper bound; none is ever NaN."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import dp_accounting
import numpy as np
from dp_accounting.rdp.rdp_privacy_accountant import compute_delta, compute_epsilon

from discreet import _validate
from discreet.accounting import _gaussian, _pld
from discreet.accounting.events import Event
from discreet.errors import AccountingError
from discreet.privacy import NeighboringRelation

AccountantName = Literal["pld", "rdp"]

# dp-accounting sums up to about a thousand rounded terms per order and step.
_RDP_ROUNDING_PER_STEP = 1e-13


class Accountant(Protocol):
    """Turns events into ε at δ, all of them composed in one go (never by adding ε)."""

    name: ClassVar[str]
    """`pld` or `rdp`."""

    @property
    def version(self) -> str:
        """Library and version that the numbers come from."""
        ...

    @property
    def relation(self) -> NeighboringRelation:
        """The neighbouring relation of the guarantee."""
        ...

    def epsilon(self, events: Sequence[Event], *, delta: float) -> float:
        """Smallest ε proven at δ; 0 if nothing ran, ∞ if a step had no noise."""
        ...

    def delta(self, events: Sequence[Event], *, epsilon: float) -> float:
        """Smallest δ proven at ε; 0 if nothing ran, 1 if nothing better is known."""
        ...

    def coarse(self) -> Accountant:
        """The same accountant, faster and about 1 % looser: for searches and displays."""
        ...


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
        return _library_version()

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
        terms = _terms(events)
        mu = _gaussian.unamplified_mu(terms, self.relation)
        bound = _gaussian.gaussian_epsilon(mu, delta=delta)
        composed = self._compose_sampled(terms, mu)
        return _checked(bound if composed is None else min(bound, composed.epsilon(delta=delta)))

    def delta(self, events: Sequence[Event], *, epsilon: float) -> float:
        """Smallest δ proven at ε; 0 if nothing ran, 1 if nothing better is known.

        Raises:
            ConfigurationError: If ε is negative or not finite.
            AccountingError: If an event has no accounting.
        """
        _validate.non_negative(epsilon=epsilon)
        terms = _terms(events)
        mu = _gaussian.unamplified_mu(terms, self.relation)
        bound = _gaussian.gaussian_delta(mu, epsilon=epsilon)
        composed = self._compose_sampled(terms, mu)
        return _checked(bound if composed is None else min(bound, composed.delta(epsilon=epsilon)))

    def _compose_sampled(
        self, terms: Sequence[_gaussian.GaussianTerm], mu: float
    ) -> _pld.ComposedLoss | None:
        # Without a sampled step the closed form is exact; without noise nothing helps.
        if not math.isfinite(mu * mu) or all(term.sample_rate == 1 for term in terms):
            return None
        return _pld.compose(terms, relation=self.relation, coarse=self.coarse_grid)


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
        if self.relation is not NeighboringRelation.ADD_OR_REMOVE_ONE:
            raise AccountingError(
                f"the rdp accountant has no sound bound under {self.relation}",
                where="accountant",
                do="use accountant=pld",
            )

    @property
    def version(self) -> str:
        """Library and version that the numbers come from."""
        return _library_version()

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
        return 0.0 if curve is None else _checked(float(compute_epsilon(*curve, delta)[0]))

    def delta(self, events: Sequence[Event], *, epsilon: float) -> float:
        """Smallest δ proven at ε; 0 if nothing ran, 1 if nothing better is known.

        Raises:
            ConfigurationError: If ε is negative or not finite.
            AccountingError: If an event has no accounting.
        """
        _validate.non_negative(epsilon=epsilon)
        curve = self._curve(events)
        return 0.0 if curve is None else _checked(float(compute_delta(*curve, epsilon)[0]))

    def _curve(self, events: Sequence[Event]) -> tuple[list[float], list[float]] | None:
        """Orders and Rényi divergences of all that ran; None if nothing did."""
        terms = _terms(events)
        if not terms:
            return None
        library = dp_accounting.rdp.RdpAccountant()
        mu = _gaussian.unamplified_mu(terms, self.relation)
        if not math.isfinite(mu * mu):  # no noise, or so little that its square is zero
            return list(library.orders), [math.inf] * len(library.orders)
        with _quiet_library():
            for term in terms:
                library.compose(term.to_dp_event(), term.steps)
        # The library takes a divergence that rounding made negative for "ε = 0".
        steps = sum(term.steps for term in terms)
        rdp = np.maximum(library.rdp, 0) + steps * _RDP_ROUNDING_PER_STEP
        return list(library.orders), list(rdp)


def make_accountant(
    name: AccountantName,
    *,
    relation: NeighboringRelation = NeighboringRelation.ADD_OR_REMOVE_ONE,
) -> Accountant:
    """The accountant of that name.

    Raises:
        AccountingError: If there is none, or it does not support the relation.
    """
    match name:
        case "pld":
            return PldAccountant(relation=relation)
        case "rdp":
            return RdpAccountant(relation=relation)
        case _:
            raise AccountingError(
                f"unknown accountant {name!r}", where="accountant", do="use pld or rdp"
            )


def epsilon_per_step_count(
    event: Event,
    step_counts: Sequence[int],
    *,
    delta: float,
    accountant: Accountant,
    before: Sequence[Event] = (),
) -> tuple[float, ...]:
    """ε after each of several numbers of steps of one event, cheaply: for a progress display.

    Every value is an upper bound. The one of the largest count is exactly what `accountant` says
    of it; the others may be about 1 % looser. More steps never have a smaller ε.

    Args:
        event: The mechanism; its own `steps` are not looked at.
        step_counts: Numbers of steps, each at least 0, in any order.
        delta: δ of the guarantee.
        accountant: Computes ε.
        before: Events that ran before the first step.

    Returns:
        One ε per entry of `step_counts`.
    """

    def spent(steps: int, by: Accountant) -> float:
        return by.epsilon([*before, event.with_steps(steps)], delta=delta)

    quick = accountant.coarse()
    known: dict[int, float] = {}
    ceiling = math.inf
    for steps in sorted(set(step_counts), reverse=True):
        # What more steps do not exceed, fewer do not either.
        ceiling = min(ceiling, spent(steps, quick if known else accountant))
        known[steps] = ceiling
    return tuple(known[steps] for steps in step_counts)


def _terms(events: Sequence[Event]) -> tuple[_gaussian.GaussianTerm, ...]:
    return _gaussian.gaussian_terms([event.to_dp_event() for event in events])


def _checked(value: float) -> float:
    if math.isnan(value):
        raise AccountingError(
            "the accounting did not come to a number",
            do="use the other accountant, or less extreme settings",
        )
    return max(0.0, value)


def _library_version() -> str:
    return f"dp-accounting {importlib.metadata.version('dp-accounting')}"


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
