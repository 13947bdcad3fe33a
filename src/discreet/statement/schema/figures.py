"""The numbers that follow from what was charged."""

from __future__ import annotations

from discreet.privacy import NeighboringRelation, PrivacyUnit
from discreet.statement.part import (
    Count,
    CountFromOne,
    Delta,
    NonNegative,
    Part,
    Share,
)
from discreet.statement.schema.claim import Events


class EpsilonAtDelta(Part):
    """One point of the privacy curve."""

    delta: Delta
    epsilon: NonNegative | None
    """Null where there is no bound, or the accountant has none at this δ."""


class DeltaAtEpsilon(Part):
    """One point of the privacy profile."""

    epsilon: NonNegative
    delta: Share


class GroupGuarantee(Part):
    """The guarantee for several units at once, such as all images of one person."""

    size: CountFromOne
    """Units in the group."""
    epsilon: NonNegative | None
    """ε at the claim's δ, an upper bound; null where there is none."""


class GaussianDp(Part):
    """The same guarantee as that of one Gaussian mechanism (Dong et al. 2022), always by PLD."""

    mu: NonNegative
    """μ: the run is at most as revealing as N(0, 1) against N(μ, 1)."""
    delta_floor: Delta
    """Below this δ nothing is claimed of μ."""
    regret: NonNegative
    """How much μ exaggerates; under 0.01 it stands for the whole curve (Gomez et al. 2025)."""


class TruePositiveRate(Part):
    """How many members an attacker finds at a given rate of false alarms."""

    false_positive_rate: Share
    at_most: Share


class AttackBounds(Part):
    """The most that any attacker can do who asks whether one given unit was used."""

    balanced_accuracy: Share
    """Share of right answers where "used" and "not used" are equally likely; a coin has 0.5."""
    true_positive_rates: tuple[TruePositiveRate, ...]


class Figures(Part):
    """All that follows from the events, the accountant and δ."""

    epsilon_at_delta: tuple[EpsilonAtDelta, ...]
    profile: tuple[DeltaAtEpsilon, ...]
    """δ at ε from 0 to the claim's; empty where there is no bound."""
    attack: AttackBounds | None
    """Null where there is no bound."""
    gaussian_dp: GaussianDp | None
    """Null where there is no bound, or it was not worked out."""
    epsilon_without_amplification: NonNegative | None
    """ε of the same run if its units had been dealt out once an epoch, not drawn at random."""
    groups: tuple[GroupGuarantee, ...]


class Spending(Part):
    """What was spent of the most charged unit, by the ledger of its data set."""

    run: NonNegative | None
    """ε of this run alone."""
    total: NonNegative | None
    """ε of all runs on it, composed at once; null where there is no bound."""
    unit: PrivacyUnit
    """Whose total it is: that of this run's unit, or of one image where runs on the same images had
    different units."""
    neighboring_relation: NeighboringRelation
    """Under which it is composed: that of this run, or replace_one where units differed, since an
    image that is taken out of a group changes the group and does not remove it."""
    delta: Delta
    runs: Count
    """Runs that charged that unit, this one among them: tuning runs count like any other."""
    unprotected_runs: Count
    """Those of them that had no guarantee."""
    events: Events
    """All that ran on it, without the unprotected runs."""
