"""Whether a record agrees with itself: all of it follows from a few numbers and the events."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from discreet.accounting import Event, epsilon_of_runs, event_from_json, make_accountant
from discreet.config import MechanismConfig
from discreet.privacy import NeighboringRelation, PrivacyUnit
from discreet.statement.figures import assumed_sampling, figures_of
from discreet.statement.record import ADVERSARY, FLOATING_POINT, OUTPUTS, mechanism_of
from discreet.statement.schema import PrivacyRecord

_SAME = 1e-9  # relative: the same arithmetic on another machine
# Another version of an accountant may be tighter or looser by its rounding, not by more.
_OTHER_VERSION = 0.02


@dataclass(kw_only=True)
class Findings:
    """What a look at a record found.

    Attributes:
        faults: Why it is not valid.
        notices: What its reader should know.
    """

    faults: list[str] = field(default_factory=list[str])
    notices: list[str] = field(default_factory=list[str])


def examine(record: PrivacyRecord) -> Findings:
    """Compare a record with what follows from its events and settings."""
    found = Findings()
    try:
        mechanism = mechanism_of(record)
        accountant = mechanism.make_accountant()
    except ValueError as error:
        found.faults.append(f"its settings are not those of any run ({_first_line(error)})")
        return found
    events = [event_from_json(event) for event in record.events]
    found.faults += _plain_faults(record, mechanism, events)
    tolerance = _SAME * 1000
    if accountant.version != record.accountant.version:
        tolerance = _OTHER_VERSION
        found.notices.append(
            f"recomputed with {accountant.version}, the record used {record.accountant.version}: "
            f"figures are compared to {tolerance:.0%}"
        )
    epsilon = accountant.epsilon(events, delta=record.claim.delta)
    stated = _number(record.claim.epsilon)
    if not _close(stated, epsilon, tolerance):
        found.faults.append(f"claim.epsilon: states {stated:.6g}, the events give {epsilon:.6g}")
        return found  # all other figures hang on it
    expected = figures_of(mechanism, events, epsilon=stated).model_dump(mode="json")
    found.faults += _differences(
        record.figures.model_dump(mode="json"), expected, "figures", tolerance
    )
    found.faults += _spending_faults(record, tolerance)
    return found


def _plain_faults(
    record: PrivacyRecord, mechanism: MechanismConfig, events: Sequence[Event]
) -> Iterator[str]:
    sampling, steps, does = record.sampling, record.steps, record.mechanism
    charged = sum(event.steps for event in events)
    sensitivity = mechanism.make_clipping().sensitivity
    last = mechanism.noise_multiplier_at(mechanism.steps)
    assumed = assumed_sampling(mechanism, events)
    numbers = {
        "sampling.sample_rate": (sampling.sample_rate, mechanism.sample_rate),
        "mechanism.sensitivity": (does.sensitivity, sensitivity),
        "mechanism.noise_multiplier_of_last_step": (does.noise_multiplier_of_last_step, last),
        "mechanism.noise_standard_deviation": (
            does.noise_standard_deviation,
            does.noise_multiplier * sensitivity,
        ),
        "mechanism.noise_standard_deviation_of_last_step": (
            does.noise_standard_deviation_of_last_step,
            last * sensitivity,
        ),
        "mechanism.normaliser": (does.normaliser, sampling.expected_batch_size),
        "steps.charged": (steps.charged, charged),
    }
    for where, (stated, true) in numbers.items():
        if not _close(stated, true, _SAME):
            yield f"{where}: states {stated:.6g}, it has to be {true:.6g}"
    if not steps.executed <= steps.charged <= steps.planned:
        yield "steps: more were executed than charged, or charged than planned"
    if sampling.assumed != assumed or sampling.match != (assumed == sampling.used):
        yield f"sampling: the events are those of {assumed or 'no known sampling'}"
    if assumed is None:
        yield "events: they are not those of the mechanism on record"
    reasons = record.claim.reasons_against
    sound = sampling.match and record.claim.epsilon is not None and record.random_source.secure
    if record.claim_valid != (not reasons) or (record.claim_valid and not sound):
        yield "claim_valid: the record says otherwise elsewhere"
    if record.data.validation.access != "public" and record.metrics is not None:
        yield "metrics: they are of validation images that are not public"
    if record.data.validation.metrics_are_released != (record.metrics is not None):
        yield "data.validation.metrics_are_released: it does not say whether there are metrics"
    if (record.unit.grouping_key is None) == (record.unit.kind is PrivacyUnit.GROUP):
        yield "unit: its kind and its grouping do not agree"
    if (record.data.pretraining.access == "none") and record.data.pretraining.sha256 is not None:
        yield "data.pretraining: it names weights where there were none"
    constants = (record.adversary, record.outputs, record.floating_point)
    if constants != (ADVERSARY, OUTPUTS, FLOATING_POINT):
        yield "adversary, outputs, floating_point: not in the words of this program"


def _spending_faults(record: PrivacyRecord, tolerance: float) -> Iterator[str]:
    spent = record.spent
    stated = _number(spent.total)
    if spent.unprotected_runs > spent.runs or spent.runs < 1:
        yield "spent.runs: fewer than this one, or than those without protection"
    if spent.run != record.claim.epsilon:
        yield "spent.run: it is another than the claim's"
    if spent.delta != record.claim.delta:
        yield "spent.delta: it is another than the claim's"
    usual = (record.unit.kind, record.unit.neighboring_relation)
    mixed = (PrivacyUnit.IMAGE, NeighboringRelation.REPLACE_ONE)
    if (spent.unit, spent.neighboring_relation) not in (usual, mixed):
        yield "spent.unit, spent.neighboring_relation: they are neither this run's nor an image's"
    same = spent.neighboring_relation is record.unit.neighboring_relation
    accountant = make_accountant(
        record.accountant.name if same else "pld", relation=spent.neighboring_relation
    )
    events = [event_from_json(event) for event in spent.events]
    if record.claim_valid and not _are_among(record.events, events):
        yield "spent.events: this run's are not among them"
    epsilon = epsilon_of_runs(events, delta=spent.delta, accountant=accountant)
    epsilon = max(epsilon, _number(spent.run))
    if spent.unprotected_runs:
        epsilon = math.inf
    if not _close(stated, epsilon, tolerance):
        yield f"spent.total: states {stated:.6g}, its events give {epsilon:.6g}"
    if record.claim_valid and stated < _number(record.claim.epsilon) * (1 - tolerance):
        yield "spent.total: it is less than this run's alone"


def _are_among(own: Sequence[Mapping[str, Any]], everybodys: Sequence[Event]) -> bool:
    """Whether each mechanism ran at least as often in all runs as in this one."""
    steps: Counter[Event] = Counter()
    for event in everybodys:
        steps[event.with_steps(0)] += event.steps
    for event in map(event_from_json, own):
        steps[event.with_steps(0)] -= event.steps
    return all(left >= 0 for left in steps.values())


def _differences(stated: object, true: object, where: str, tolerance: float) -> Iterator[str]:
    """Leaves of two JSON values that are apart by more than a relative tolerance."""
    if isinstance(true, Mapping) and isinstance(stated, Mapping):
        for key, value in cast("Mapping[str, Any]", true).items():
            inner = cast("Mapping[str, Any]", stated).get(key)
            yield from _differences(inner, value, f"{where}.{key}", tolerance)
    elif isinstance(true, list) and isinstance(stated, list):
        pairs = list(zip(cast("list[object]", stated), cast("list[object]", true), strict=False))
        if len(cast("list[object]", true)) != len(cast("list[object]", stated)):
            yield f"{where}: it has another number of entries"
        for i, (inner, value) in enumerate(pairs):
            yield from _differences(inner, value, f"{where}[{i}]", tolerance)
    elif isinstance(true, int | float) and isinstance(stated, int | float):
        if not _close(stated, true, tolerance):
            yield f"{where}: states {stated:.6g}, it has to be {true:.6g}"
    elif stated != true:
        yield f"{where}: states {stated!r}, it has to be {true!r}"


def _close(stated: float, true: float, tolerance: float) -> bool:
    return math.isclose(stated, true, rel_tol=tolerance, abs_tol=1e-12)


def _number(epsilon: float | None) -> float:
    return math.inf if epsilon is None else epsilon


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
