"""Accountants: known numbers from both sides, upper bounds, and composition in one go."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import time
import warnings
from collections.abc import Sequence

import dp_accounting
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from discreet.accounting import (
    Accountant,
    Event,
    PldAccountant,
    PoissonSampledGaussian,
    PrvAccountant,
    RdpAccountant,
    epsilon_per_prefix,
    epsilon_per_step_count,
    make_accountant,
)
from discreet.errors import AccountingError, ConfigurationError
from discreet.privacy import NeighboringRelation

DELTA = 1e-5
# Of processor time; other work on the same core may double what is counted.
TWO_SECONDS = 2 * 2
REPLACE = NeighboringRelation.REPLACE_ONE

# q, T at noise multiplier 1.2 and delta 1e-5; epsilon by PLD, RDP and Opacus' PRV.
CASES = [
    pytest.param(0.01, 5000, 3.044, 3.319, 3.055, id="q0.01"),
    pytest.param(1.0, 100, 69.46, 72.98, 69.47, id="coco8"),
    pytest.param(0.01024, 4883, 3.087, 3.365, 3.097, id="50-epochs"),
    pytest.param(0.01024, 9766, 4.542, 4.926, 4.552, id="100-epochs"),
]


def ran(sample_rate: float, steps: int, noise_multiplier: float = 1.2) -> PoissonSampledGaussian:
    return PoissonSampledGaussian(
        sample_rate=sample_rate, noise_multiplier=noise_multiplier, steps=steps
    )


@pytest.fixture(params=["pld", "rdp", "prv"])
def accountant(request: pytest.FixtureRequest) -> Accountant:
    return make_accountant(request.param)


# --- known numbers -------------------------------------------------------------------------


@pytest.mark.parametrize(("q", "steps", "pld", "rdp", "prv"), CASES)
def test_known_epsilons(q: float, steps: int, pld: float, rdp: float, prv: float) -> None:
    events = [ran(q, steps)]
    assert PldAccountant().epsilon(events, delta=DELTA) == pytest.approx(pld, rel=2e-3)
    assert RdpAccountant().epsilon(events, delta=DELTA) == pytest.approx(rdp, rel=2e-3)
    assert PrvAccountant().epsilon(events, delta=DELTA) == pytest.approx(prv, rel=2e-3)


@pytest.mark.parametrize(("q", "steps", "pld", "rdp", "prv"), CASES)
def test_opacus_agrees(q: float, steps: int, pld: float, rdp: float, prv: float) -> None:
    from opacus.accountants import PRVAccountant as OpacusPrv
    from opacus.accountants import RDPAccountant as OpacusRdp

    theirs: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, kind in (("rdp", OpacusRdp), ("prv", OpacusPrv)):
            opacus = kind()
            opacus.history = [(1.2, q, steps)]
            theirs[name] = float(opacus.get_epsilon(DELTA))
    assert theirs["prv"] == pytest.approx(prv, rel=2e-3)
    # PRV adds its error bound of 0.01 to its own estimate.
    assert PldAccountant().epsilon([ran(q, steps)], delta=DELTA) == pytest.approx(
        theirs["prv"] - 0.01, abs=2e-3
    )
    assert RdpAccountant().epsilon([ran(q, steps)], delta=DELTA) == pytest.approx(
        theirs["rdp"], rel=1e-3
    )


def test_opacus_gaussian_accountant_is_no_upper_bound() -> None:
    from opacus.accountants import GaussianAccountant

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opacus = GaussianAccountant()
        opacus.history = [(1.2, 0.01, 5000)]
        theirs = float(opacus.get_epsilon(DELTA))
    assert theirs == pytest.approx(2.95, rel=2e-3)
    assert PldAccountant().epsilon([ran(0.01, 5000)], delta=DELTA) > theirs + 0.09


@pytest.mark.parametrize(("epochs", "expected"), [(50, 41.7), (100, 69.5)])
def test_without_amplification(epochs: int, expected: float) -> None:
    # A shuffled loader shows each unit once an epoch: full-batch composition of the epochs.
    spent = PldAccountant().epsilon([ran(1, epochs)], delta=DELTA)
    assert spent == pytest.approx(expected, rel=2e-3)


def test_replace_one_poisson() -> None:
    spent = PldAccountant(relation=REPLACE).epsilon([ran(0.01024, 4883)], delta=DELTA)
    assert spent == pytest.approx(5.59, rel=2e-3)


def test_replace_one_trap_of_the_library() -> None:
    # The same event means twice the sensitivity to one of its accountants only.
    theirs = dp_accounting.NeighboringRelation.REPLACE_ONE
    event = dp_accounting.GaussianDpEvent(5)
    pld = dp_accounting.pld.PLDAccountant(theirs).compose(event).get_epsilon(DELTA)
    rdp = dp_accounting.rdp.RdpAccountant(neighboring_relation=theirs).compose(event)
    assert pld == pytest.approx(1.555, rel=2e-3)
    assert rdp.get_epsilon(DELTA) == pytest.approx(0.795, rel=2e-3)

    ours = PldAccountant(relation=REPLACE).epsilon([ran(1, 1, 5.0)], delta=DELTA)
    assert ours == pytest.approx(1.555, rel=2e-3)
    with pytest.raises(AccountingError, match="replace_one"):
        RdpAccountant(relation=REPLACE)
    for name in ("rdp", "prv"):
        with pytest.raises(AccountingError, match="pld"):
            make_accountant(name, relation=REPLACE)  # type: ignore[arg-type]


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0, 3.0])
@pytest.mark.parametrize(("q", "sigma"), [(0.01, 1.2), (0.3, 0.8), (0.001, 0.6)])
def test_one_step_against_the_exact_formula(q: float, sigma: float, epsilon: float) -> None:
    # Removal is the worse direction: delta(eps) = q · delta_Gauss(log(1 + (e^eps - 1) / q)).
    inner, mu = math.log1p(math.expm1(epsilon) / q), 1 / sigma
    exact = q * (
        stats.norm.cdf(mu / 2 - inner / mu) - math.exp(inner) * stats.norm.cdf(-mu / 2 - inner / mu)
    )
    ours = PldAccountant().delta([ran(q, 1, sigma)], epsilon=epsilon)
    assert exact <= ours <= exact * (1 + 1e-4) + 1e-11


# --- edges ---------------------------------------------------------------------------------


def test_nothing_ran(accountant: Accountant) -> None:
    for events in ([], [ran(0.01, 0)], [ran(1, 0, 0.0)]):
        assert accountant.epsilon(events, delta=DELTA) == 0
        assert accountant.delta(events, epsilon=1.0) == 0


@pytest.mark.parametrize("sigma", [0.0, 1e-200, 5e-324])
@pytest.mark.parametrize("q", [0.01, 1.0])
def test_no_noise_is_no_privacy(accountant: Accountant, q: float, sigma: float) -> None:
    events = [ran(0.01, 10), ran(q, 1, sigma)]
    assert accountant.epsilon(events, delta=DELTA) == math.inf
    assert accountant.delta(events, epsilon=100.0) == 1


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan, math.inf])
def test_delta_out_of_range(accountant: Accountant, delta: float) -> None:
    with pytest.raises(ConfigurationError, match="delta"):
        accountant.epsilon([ran(0.01, 1)], delta=delta)


@pytest.mark.parametrize("epsilon", [-1.0, math.nan, math.inf])
def test_epsilon_out_of_range(accountant: Accountant, epsilon: float) -> None:
    with pytest.raises(ConfigurationError, match="epsilon"):
        accountant.delta([ran(0.01, 1)], epsilon=epsilon)


def test_unknown_accountant() -> None:
    with pytest.raises(AccountingError, match="gdp"):
        make_accountant("gdp")  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """An event with no accounting behind it."""

    steps: int = 1
    kind = "shuffled"

    def with_steps(self, steps: int) -> Shuffled:
        return Shuffled(steps)

    def to_dp_event(self) -> dp_accounting.DpEvent:
        return dp_accounting.SampledWithReplacementDpEvent(
            100, 10, dp_accounting.GaussianDpEvent(1.0)
        )

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, "steps": self.steps}


def test_event_without_accounting_is_refused(accountant: Accountant) -> None:
    events: Sequence[Event] = [ran(0.01, 1), Shuffled()]
    with pytest.raises(AccountingError, match="SampledWithReplacement"):
        accountant.epsilon(events, delta=DELTA)


def test_says_where_numbers_come_from(accountant: Accountant) -> None:
    library = "opacus" if accountant.name == "prv" else "dp-accounting 0.6"
    assert accountant.version.startswith(library)
    assert accountant.relation is NeighboringRelation.ADD_OR_REMOVE_ONE
    assert make_accountant(accountant.name) == accountant  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("q", "steps", "sigma"),
    [
        (0.01, 100, 0.1),
        (0.5, 100, 0.1),
        (0.01, 5000, 0.05),
        (0.01, 10, 1e-3),
        (0.999, 100, 1.2),
        (0.5, 10**6, 5.0),
        (6e-5, 800_000, 1.0),
        (0.01, 10**7, 1.2),
        (1e-9, 10, 1.0),
        (0.01, 100, 1e200),
        (5e-324, 100, 0.1),
        (1 - 1e-16, 100, 2.0),
    ],
)
@pytest.mark.parametrize("relation", list(NeighboringRelation))
def test_extremes_are_finite_and_quick(
    q: float, steps: int, sigma: float, relation: NeighboringRelation
) -> None:
    began = time.process_time()
    spent = PldAccountant(relation=relation).epsilon([ran(q, steps, sigma)], delta=DELTA)
    assert time.process_time() - began < TWO_SECONDS
    assert 0 <= spent < math.inf
    unamplified = PldAccountant(relation=relation).epsilon([ran(1, steps, sigma)], delta=DELTA)
    assert spent <= unamplified


def test_rdp_does_not_chatter(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="absl"):
        assert RdpAccountant().epsilon([ran(0.5, 100, 5.0)], delta=DELTA) > 0
    assert not caplog.records


def test_rdp_rounding_does_not_make_epsilon_zero() -> None:
    # The divergence of this step is below float rounding, and comes out negative at most orders.
    event = ran(1e-8, 1, 1e4)
    library = dp_accounting.rdp.RdpAccountant().compose(event.to_dp_event())
    assert min(library.rdp) < 0
    assert RdpAccountant().epsilon([event], delta=1e-300) > 0


# --- composition ---------------------------------------------------------------------------


def test_split_events_cost_what_one_event_costs(accountant: Accountant) -> None:
    whole = accountant.epsilon([ran(0.01, 300)], delta=DELTA)
    parts = accountant.epsilon([ran(0.01, 100), ran(0.01, 1), ran(0.01, 199)], delta=DELTA)
    assert parts == pytest.approx(whole, rel=1e-12)


def test_different_events_compose_in_one_go(accountant: Accountant) -> None:
    first, second = ran(0.01, 1000, 1.0), ran(0.02, 500, 2.0)
    alone = [accountant.epsilon([event], delta=DELTA) for event in (first, second)]
    together = accountant.epsilon([first, second], delta=DELTA)
    assert max(alone) < together < 0.9 * sum(alone)
    assert together == pytest.approx(accountant.epsilon([second, first], delta=DELTA), rel=1e-6)


# Noise that falls in four stages; by all three accountants, and by the libraries themselves.
SCHEDULE = [ran(0.01, 1000, 2.0), ran(0.01, 1000, 1.5), ran(0.01, 1000, 1.2), ran(0.02, 500, 1.0)]


@pytest.mark.slow
def test_heterogeneous_known_numbers() -> None:
    from opacus.accountants import PRVAccountant as OpacusPrv

    pld, rdp, prv = (
        by.epsilon(SCHEDULE, delta=DELTA)
        for by in (PldAccountant(), RdpAccountant(), PrvAccountant())
    )
    library = dp_accounting.pld.PLDAccountant()
    renyi = dp_accounting.rdp.RdpAccountant()
    opacus = OpacusPrv()
    for event in SCHEDULE:
        library.compose(event.to_dp_event())
        renyi.compose(event.to_dp_event())
        opacus.history.append((event.noise_multiplier, event.sample_rate, event.steps))
    assert pld == pytest.approx(library.get_epsilon(DELTA), rel=2e-3)
    assert rdp == pytest.approx(renyi.get_epsilon(DELTA), rel=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert prv == pytest.approx(float(opacus.get_epsilon(DELTA)), rel=1e-4)
    assert pld == pytest.approx(prv - 0.01, abs=3e-3)


def test_prv_fails_clearly() -> None:
    with pytest.raises(AccountingError, match="accountant=pld"):
        PrvAccountant().epsilon([ran(0.01, 1, 1e-3)], delta=DELTA)


def test_prv_is_an_upper_bound_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [ran(0.02, 200)]
    upper, pld = PrvAccountant(), PldAccountant()
    for epsilon in (0.3, 1.0, 2.0):
        exact = pld.delta(events, epsilon=epsilon)
        assert exact <= upper.delta(events, epsilon=epsilon) <= 1.3 * exact + 1e-9


def test_sampled_and_full_batch_steps_compose() -> None:
    sampled, full = ran(0.01, 1000, 1.0), ran(1, 100, 20.0)
    ours = PldAccountant().epsilon([sampled, full], delta=DELTA)
    library = dp_accounting.pld.PLDAccountant()
    for event in (sampled, full):
        library.compose(event.to_dp_event())
    assert ours == pytest.approx(library.get_epsilon(DELTA), rel=2e-3)


def test_epsilon_and_delta_are_each_others_inverse(accountant: Accountant) -> None:
    accountant = accountant.coarse()
    for events in ([ran(0.01, 1000)], [ran(1, 10, 4.0)], [ran(0.01, 1000), ran(1, 3, 4.0)]):
        for delta in (1e-3, 1e-5, 1e-7):
            epsilon = accountant.epsilon(events, delta=delta)
            assert accountant.delta(events, epsilon=epsilon) == pytest.approx(delta, rel=1e-3)


# --- properties ----------------------------------------------------------------------------

rates = st.floats(1e-3, 1)
multipliers = st.floats(0.5, 20)
step_counts = st.integers(1, 2000)
deltas = st.sampled_from([1e-3, 1e-5, 1e-7])
factors = st.floats(1.1, 2)
few = settings(max_examples=12, deadline=None)
accountants = st.sampled_from([PldAccountant().coarse(), RdpAccountant()])
# The grid may change between two settings, and its rounding with it.
SLACK = 1 + 2e-2


@few
@given(accountants, rates, multipliers, step_counts, deltas, factors)
def test_more_noise_costs_less(
    by: Accountant, q: float, sigma: float, steps: int, delta: float, factor: float
) -> None:
    less = by.epsilon([ran(q, steps, sigma * factor)], delta=delta)
    assert less <= by.epsilon([ran(q, steps, sigma)], delta=delta) * SLACK + 1e-9


@few
@given(accountants, rates, multipliers, step_counts, deltas, factors)
def test_more_sampling_costs_more(
    by: Accountant, q: float, sigma: float, steps: int, delta: float, factor: float
) -> None:
    assume(q * factor <= 1)
    more = by.epsilon([ran(q * factor, steps, sigma)], delta=delta)
    assert more * SLACK + 1e-9 >= by.epsilon([ran(q, steps, sigma)], delta=delta)


@few
@given(accountants, rates, multipliers, step_counts, deltas, st.integers(1, 500))
def test_more_steps_cost_more(
    by: Accountant, q: float, sigma: float, steps: int, delta: float, extra: int
) -> None:
    more = by.epsilon([ran(q, steps + extra, sigma)], delta=delta)
    assert more * SLACK + 1e-9 >= by.epsilon([ran(q, steps, sigma)], delta=delta)


@few
@given(rates, multipliers, step_counts, deltas)
def test_replacing_costs_at_least_what_removing_does(
    q: float, sigma: float, steps: int, delta: float
) -> None:
    replaced, removed = (
        PldAccountant(relation=relation).coarse().epsilon([ran(q, steps, sigma)], delta=delta)
        for relation in (REPLACE, NeighboringRelation.ADD_OR_REMOVE_ONE)
    )
    assert replaced * SLACK + 1e-9 >= removed


# --- ε along the way -----------------------------------------------------------------------


def test_prefixes_of_a_schedule_are_quick_and_rise() -> None:
    stages = [ran(0.01024, 150, 0.8 + 0.03 * i) for i in range(32)]
    prefixes = [[]] + [
        [*stages[: steps // 150], stages[steps // 150].with_steps(steps % 150)]
        for steps in range(47, 4700, 47)
    ]
    for by in (PldAccountant(), RdpAccountant()):
        began = time.process_time()
        spent = epsilon_per_prefix(prefixes, delta=DELTA, accountant=by)
        assert time.process_time() - began < 2 * 5
        assert spent[0] == 0
        assert all(a < b for a, b in itertools.pairwise(spent))
        assert spent[-1] == by.epsilon(prefixes[-1], delta=DELTA)
        middle = by.epsilon(prefixes[50], delta=DELTA)
        assert middle * (1 - 1e-9) <= spent[50] <= middle * 1.015
    assert epsilon_per_prefix([], delta=DELTA, accountant=PldAccountant()) == ()


def test_epsilon_along_the_way(accountant: Accountant) -> None:
    event, counts = ran(0.01, 5000), [250 * k for k in range(21)]
    began = time.process_time()
    spent = epsilon_per_step_count(event, counts, delta=DELTA, accountant=accountant)
    assert time.process_time() - began < TWO_SECONDS
    assert spent[0] == 0
    assert spent[-1] == accountant.epsilon([event], delta=DELTA)
    assert all(a < b for a, b in itertools.pairwise(spent))
    last_two = epsilon_per_step_count(event, [4999, 5000], delta=DELTA, accountant=accountant)
    assert last_two[0] <= last_two[1] == spent[-1], "the looser grid shows"
    for k in (1, 7, 19):
        exact = accountant.epsilon([event.with_steps(counts[k])], delta=DELTA)
        # prv's own numbers have its error of 0.01 on top, the quick ones may not.
        below = 0.011 if accountant.name == "prv" else 0.0
        assert exact - below <= spent[k] <= exact * 1.01


def test_epsilon_along_the_way_after_earlier_events() -> None:
    by, before = PldAccountant(), [ran(0.02, 500, 1.5)]
    counts = [900, 0, 300, 900]
    spent = epsilon_per_step_count(ran(0.01, 1), counts, delta=DELTA, accountant=by, before=before)
    assert spent[0] == spent[3] == by.epsilon([*before, ran(0.01, 900)], delta=DELTA)
    alone = by.epsilon(before, delta=DELTA)
    assert alone <= spent[1] <= alone * 1.01
    assert spent[1] < spent[2] < spent[0]
    assert epsilon_per_step_count(ran(0.01, 1), [], delta=DELTA, accountant=by) == ()


def test_epsilon_along_the_way_without_noise(accountant: Accountant) -> None:
    spent = epsilon_per_step_count(
        ran(0.01, 10, 0.0), [0, 5, 10], delta=DELTA, accountant=accountant
    )
    assert spent == (0, math.inf, math.inf)
