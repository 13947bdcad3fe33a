from __future__ import annotations

import math
from typing import Any

import pytest

from discreet.accounting import (
    AccountantName,
    Event,
    PoissonSampledGaussian,
    RdpAccountant,
    ShuffledGaussian,
    TruncatedPoissonSampledGaussian,
    make_accountant,
)
from discreet.errors import BudgetError, ConfigurationError, LedgerError
from discreet.ledger import BudgetLedger, Reservation
from discreet.terminal import format_epsilon
from tests.ledger.conftest import DELTA, PLD, STEP, epsilon, images

NAMES: tuple[AccountantName, ...] = ("pld", "rdp", "prv")
QUIET = PoissonSampledGaussian(sample_rate=1.0, noise_multiplier=30.0, steps=1)


def reserve(
    ledger: BudgetLedger,
    run: str,
    steps: int = 10,
    *,
    of: list[bytes] | None = None,
    plan: list[Event] | None = None,
    **more: Any,
) -> Reservation:
    return ledger.reserve(
        run_id=run,
        name=more.pop("name", "blood"),
        digests=images(*range(5)) if of is None else of,
        planned=[STEP.with_steps(steps)] if plan is None else plan,
        accountant=more.pop("accountant", PLD),
        delta=DELTA,
        **more,
    )


def spent(ledger: BudgetLedger, of: list[bytes] | str = "blood", **more: Any) -> float:
    return ledger.total(of, delta=DELTA, accountant=PLD, **more).epsilon


def test_a_run_reserves_charges_and_settles(ledger: BudgetLedger):
    run = reserve(ledger, "a")
    assert (run.charged, run.remaining, run.events) == (0, 10, ())
    for _ in range(3):
        run.charge(STEP)
    assert (run.charged, run.remaining, run.events) == (3, 7, (STEP.with_steps(3),))
    assert spent(ledger) == epsilon(3)
    assert spent(ledger, reserved=True) == epsilon(10)
    run.settle()
    run.settle()
    assert (run.charged, run.remaining) == (3, 0)
    assert spent(ledger, reserved=True) == epsilon(3)
    with pytest.raises(BudgetError, match="settled"):
        run.charge(STEP)


def test_it_is_there_when_opened_again(ledger: BudgetLedger, where: str):
    reserve(ledger, "a").charge(STEP.with_steps(4))
    again = BudgetLedger.open(where)
    assert again.ledger_id == ledger.ledger_id
    assert again.fingerprint(b"x") == ledger.fingerprint(b"x")
    run = again.reopen("a")
    assert (run.charged, run.remaining, run.planned) == (4, 6, (STEP.with_steps(10),))
    run.charge(STEP, steps=6)
    assert spent(ledger) == epsilon(10)
    again.close()


def test_keys_are_of_the_ledger(sqlite: BudgetLedger, tmp_path: Any):
    other = BudgetLedger.open(tmp_path / "other.sqlite")
    assert other.ledger_id != sqlite.ledger_id
    assert other.fingerprint(b"x") != sqlite.fingerprint(b"x")
    assert other.mac(b"x") != sqlite.mac(b"x") == sqlite.mac(b"x")
    other.close()


def test_runs_compose_in_one_call_and_never_by_adding(ledger: BudgetLedger):
    for run, plan in (("a", [STEP.with_steps(10)]), ("b", [QUIET.with_steps(10)])):
        reserve(ledger, run, plan=plan).charge(plan[0])
    together = PLD.epsilon([STEP.with_steps(10), QUIET.with_steps(10)], delta=DELTA)
    assert spent(ledger) == together
    assert together < epsilon(10) + epsilon(10, QUIET)
    total = ledger.total("blood", delta=DELTA, accountant=PLD)
    assert (total.runs, total.unprotected_runs) == (2, 0)
    assert set(total.events) == {STEP.with_steps(10), QUIET.with_steps(10)}


def test_the_most_charged_image_counts(ledger: BudgetLedger):
    reserve(ledger, "a", of=images(1, 2, 3), name="v1").charge(STEP.with_steps(2))
    reserve(ledger, "b", of=images(3, 4, 5), name="v2").charge(STEP.with_steps(3))
    reserve(ledger, "c", of=images(5, 6), name="v3").charge(STEP.with_steps(5))
    assert spent(ledger, "v1") == epsilon(5)  # image 3
    assert spent(ledger, "v2") == epsilon(8)  # image 5
    assert spent(ledger, "v3") == epsilon(8)
    assert spent(ledger, images(1)) == epsilon(2)
    assert spent(ledger, images(1, 4)) == epsilon(3)
    assert spent(ledger, images(7)) == 0


def test_a_copy_in_another_order_is_the_same_data_set(ledger: BudgetLedger):
    reserve(ledger, "a", of=images(1, 2, 3))
    reserve(ledger, "b", of=images(3, 1, 2, 2), name="renamed")
    (dataset,) = ledger.datasets()
    assert (dataset.name, dataset.images, dataset.runs) == ("blood", 3, 2)


def test_what_would_cross_a_budget_is_refused_and_leaves_no_trace(ledger: BudgetLedger):
    reserve(ledger, "a", 10).charge(STEP.with_steps(4))
    ledger.set_budget("blood", epsilon(25), DELTA)
    before = ledger.datasets(), ledger.runs()
    with pytest.raises(BudgetError) as caught:
        reserve(ledger, "b", 16, of=images(4, 5, 6), name="v2")
    assert caught.value.fitting_steps == 15
    for text in ("blood", "6 steps by run a", "15 of its 16 steps", "discreet ledger settle"):
        assert text in str(caught.value)
    assert (ledger.datasets(), ledger.runs()) == before
    assert reserve(ledger, "b", 15, of=images(4, 5, 6), name="v2").remaining == 15
    with pytest.raises(BudgetError, match="0 of its 1 steps"):
        reserve(ledger, "c", 1)


def test_a_budget_of_another_version_holds_for_shared_images_only(ledger: BudgetLedger):
    ledger.register(name="old", digests=images(1, 2))
    ledger.set_budget("old", epsilon(10), DELTA)
    with pytest.raises(BudgetError, match="old"):
        reserve(ledger, "a", 11, of=images(2, 3), name="new")
    reserve(ledger, "b", 11, of=images(3, 4), name="new").charge(STEP)


def test_settling_frees_what_was_not_charged(ledger: BudgetLedger):
    ledger.register(name="blood", digests=images(*range(5)))
    ledger.set_budget("blood", epsilon(10), DELTA)
    run = reserve(ledger, "a", 10)
    run.charge(STEP.with_steps(4))
    with pytest.raises(BudgetError):
        reserve(ledger, "b", 6)
    assert ledger.settle("a").charged == 4
    second = reserve(ledger, "b", 6)
    with pytest.raises(BudgetError, match="settled"):
        run.charge(STEP)
    with pytest.raises(BudgetError, match="would cross"):
        ledger.reopen("a")
    second.cancel()
    assert len(ledger.runs()) == 1
    assert ledger.reopen("a").remaining == 6


def test_cancelling_a_run_that_charged_keeps_the_charges(ledger: BudgetLedger):
    run = reserve(ledger, "a")
    run.charge(STEP)
    run.cancel()
    assert spent(ledger) == epsilon(1)
    assert run.remaining == 0


def test_a_run_without_guarantee_makes_the_total_infinite(ledger: BudgetLedger):
    run = reserve(ledger, "a", private=False)
    assert spent(ledger) == 0
    run.charge(STEP)
    total = ledger.total("blood", delta=DELTA, accountant=PLD)
    assert math.isinf(total.epsilon) and total.unprotected_runs == 1 and total.events == ()
    change = ledger.set_budget("blood", 8.0, DELTA)
    assert change.is_overspent and change.limits == {"a": 1}
    with pytest.raises(BudgetError, match="stopped by the budget"):
        run.charge(STEP)
    with pytest.raises(BudgetError, match="no budget can be kept"):
        reserve(ledger, "b", 1)


def test_a_run_without_guarantee_is_refused_where_there_is_a_budget(ledger: BudgetLedger):
    ledger.register(name="blood", digests=images(*range(5)))
    ledger.set_budget("blood", 1e9, DELTA)
    with pytest.raises(BudgetError, match="no guarantee"):
        reserve(ledger, "a", 1, private=False)


def test_a_lower_budget_stops_open_runs_exactly_the_newest_first(ledger: BudgetLedger):
    first, second = reserve(ledger, "a", 20), reserve(ledger, "b", 20)
    first.charge(STEP.with_steps(5))
    second.charge(STEP.with_steps(5))
    assert ledger.set_budget("blood", epsilon(30), DELTA).limits == {"b": 10}
    assert ledger.set_budget("blood", epsilon(22), DELTA).limits == {"a": 17, "b": 5}
    second.refresh()
    assert second.remaining == 0
    with pytest.raises(BudgetError, match="stopped by the budget"):
        second.charge(STEP)
    first.charge(STEP, steps=12)
    with pytest.raises(BudgetError) as caught:
        first.charge(STEP)
    assert caught.value.fitting_steps == 0
    assert spent(ledger) == epsilon(22)
    # Raised again: what was cut comes back as far as it fits, the oldest first.
    assert ledger.set_budget("blood", epsilon(30), DELTA).limits == {"a": 20, "b": 10}
    assert ledger.set_budget("blood", None).limits == {"b": 20}


def test_a_settled_run_that_does_not_fit_again_is_told_what_it_spent_itself(ledger: BudgetLedger):
    run = reserve(ledger, "a", 20)
    run.charge(STEP.with_steps(5))
    run.settle()
    ledger.set_budget("blood", epsilon(6), DELTA)
    with pytest.raises(BudgetError, match=f"spent so far: ε = {format_epsilon(epsilon(5))} by 1"):
        ledger.reopen("a")


@pytest.mark.parametrize("value", [10**400, "8", float("nan"), -1])
def test_a_budget_that_is_no_number(ledger: BudgetLedger, value: object):
    ledger.register(name="blood", digests=images(1))
    with pytest.raises(ConfigurationError, match="epsilon"):
        ledger.set_budget("blood", value)  # type: ignore[arg-type]


def test_a_place_that_no_file_has():
    with pytest.raises(ConfigurationError, match="NUL"):
        BudgetLedger.open("a\0b")


def test_a_budget_below_what_is_spent_is_allowed_and_said(ledger: BudgetLedger):
    reserve(ledger, "a").charge(STEP.with_steps(5))
    change = ledger.set_budget("blood", epsilon(4), DELTA)
    assert change.is_overspent and change.spent.epsilon == epsilon(5)
    with pytest.raises(ConfigurationError):
        ledger.set_budget("blood", -1.0, DELTA)
    (dataset,) = ledger.datasets()
    assert dataset.budget is not None and dataset.budget.epsilon == epsilon(4)


def test_a_cut_run_gets_back_what_was_freed_when_it_is_reopened(ledger: BudgetLedger):
    reserve(ledger, "a", 10)
    reserve(ledger, "b", 10)
    ledger.set_budget("blood", epsilon(12), DELTA)
    assert ledger.reopen("b").remaining == 2
    ledger.settle("a")
    assert ledger.reopen("b").remaining == 10


def test_charges_follow_the_plan(ledger: BudgetLedger):
    run = reserve(ledger, "a", plan=[STEP.with_steps(2), QUIET.with_steps(2)])
    with pytest.raises(LedgerError, match="not what run a planned as its step 1"):
        run.charge(QUIET)
    run.charge(STEP.with_steps(2))
    with pytest.raises(LedgerError, match="step 3"):
        run.charge(STEP)
    run.charge(QUIET)
    run.charge(QUIET)
    assert run.events == (STEP.with_steps(2), QUIET.with_steps(2))
    with pytest.raises(BudgetError, match="all 4 steps"):
        run.charge(QUIET)


def test_two_processes_of_one_run_cannot_hide_a_step(ledger: BudgetLedger):
    one, two = reserve(ledger, "a", 5), ledger.reopen("a")
    for run in (one, two, one, two):
        run.charge(STEP)
    assert two.charged == 4 and spent(ledger) == epsilon(4)


def test_an_id_is_used_once(ledger: BudgetLedger):
    reserve(ledger, "a")
    with pytest.raises(LedgerError, match="on record already"):
        reserve(ledger, "a")
    with pytest.raises(LedgerError, match="not on record"):
        ledger.reopen("b")


def test_a_budget_is_checked_by_the_relation_it_was_set_for(sqlite: BudgetLedger):
    from discreet.accounting import PldAccountant
    from discreet.privacy import NeighboringRelation

    replace_one = PldAccountant(relation=NeighboringRelation.REPLACE_ONE)
    sqlite.register(name="blood", digests=images(*range(5)))
    sqlite.set_budget("blood", epsilon(10), DELTA, accountant=replace_one)
    with pytest.raises(BudgetError):
        reserve(sqlite, "a", 10)
    sqlite.set_budget("blood", epsilon(10), DELTA)
    reserve(sqlite, "a", 10, accountant=replace_one)


def test_the_quick_bound_accepts_without_composing(
    sqlite: BudgetLedger, monkeypatch: pytest.MonkeyPatch
):
    sqlite.register(name="blood", digests=images(*range(5)))
    sqlite.set_budget("blood", 10 * epsilon(10), DELTA)

    def forbidden(*_: object, **__: object) -> float:
        raise AssertionError("composed")

    monkeypatch.setattr(type(PLD), "epsilon", forbidden)
    reserve(sqlite, "a", 10)
    reserve(sqlite, "b", 10)


@pytest.mark.parametrize("noise", [0.0, 1e-200, 0.05, 0.7, 5.0, 1e4])
@pytest.mark.parametrize("rate", [1e-4, 0.01, 1.0])
def test_the_quick_bound_is_one(noise: float, rate: float):
    from discreet.ledger.curves import curve_of, epsilon_bound, pack, total_of

    event = PoissonSampledGaussian(sample_rate=rate, noise_multiplier=noise, steps=500)
    bound = epsilon_bound(total_of([pack(curve_of([event]))] * 2), delta=DELTA)
    true = RdpAccountant().epsilon([event, event], delta=DELTA)
    assert bound >= true * (1 - 1e-9)
    if 0.7 <= noise < 1e3:
        assert bound <= 1.1 * true
    assert bound >= PLD.coarse().epsilon([event, event], delta=DELTA) * 0.98


def test_a_shuffled_epoch_that_a_run_has_begun_counts_in_full(ledger: BudgetLedger) -> None:
    """Each run deals its units anew: two begun epochs are two, not a fifth of one."""
    step = ShuffledGaussian(noise_multiplier=1.2, steps_per_epoch=10, steps=1)
    for number in range(2):
        run = ledger.reserve(
            run_id=f"shuffled{number}", name="d", digests=[b"x" * 16], planned=[step],
            accountant=make_accountant("pld"), delta=1e-5,
        )  # fmt: skip
        run.charge(step)
        run.settle()
    twice = make_accountant("pld").epsilon([step.with_steps(20)], delta=1e-5)
    spent = ledger.total([b"x" * 16], delta=1e-5, accountant=make_accountant("pld"))
    assert spent.epsilon == pytest.approx(twice)


def test_a_total_over_events_that_its_accountant_does_not_know(ledger: BudgetLedger) -> None:
    event = TruncatedPoissonSampledGaussian(
        sample_rate=0.1, noise_multiplier=1.2, steps=2, population=100, largest_batch=20
    )
    run = ledger.reserve(
        run_id="truncated", name="d", digests=[b"x" * 16], planned=[event],
        accountant=make_accountant("pld"), delta=1e-5,
    )  # fmt: skip
    run.charge(event)
    by = {n: ledger.total([b"x" * 16], delta=1e-5, accountant=make_accountant(n)) for n in NAMES}
    assert by["rdp"].epsilon == by["prv"].epsilon == by["pld"].epsilon > 0
