"""From events to (ε, δ). Every number returned is an upper bound; none is ever NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol

from discreet.accounting.events import Event
from discreet.accounting.pld import PldAccountant
from discreet.accounting.prv import PrvAccountant
from discreet.accounting.rdp import RdpAccountant
from discreet.errors import AccountingError
from discreet.privacy import NeighboringRelation

AccountantName = Literal["pld", "rdp", "prv"]


class Accountant(Protocol):
    """Turns events into ε at δ, all of them composed in one go (never by adding ε)."""

    name: ClassVar[str]
    """`pld`, `rdp` or `prv`."""

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
        case "prv":
            return PrvAccountant(relation=relation)
        case _:
            raise AccountingError(
                f"unknown accountant {name!r}", where="accountant", do="use pld, rdp or prv"
            )


def epsilon_of_runs(events: Sequence[Event], *, delta: float, accountant: Accountant) -> float:
    """ε of several runs composed at once, by their accountant or the one that knows all events.

    Runs on the same images need not have been planned with the accountant of the latest one.

    Args:
        events: What ran, each event `ended()`.
        delta: δ of the guarantee.
        accountant: Computes ε where it can; `pld` where it cannot.
    """
    try:
        return accountant.epsilon(events, delta=delta)
    except AccountingError:
        return make_accountant("pld", relation=accountant.relation).epsilon(events, delta=delta)
