"""Runs with different privacy units on the same images: whose total is told, and that it holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from discreet.accounting import PoissonSampledGaussian, epsilon_of_runs, make_accountant
from discreet.errors import BudgetError, ConfigurationError, LedgerError
from discreet.ledger import BudgetLedger
from discreet.ledger.units import Members, classes_of, members_of
from discreet.privacy import NeighboringRelation

from .conftest import images

PLD = make_accountant("pld")
REPLACE = NeighboringRelation.REPLACE_ONE
DELTA = 1e-5
KEY = b"k" * 32


def plan(sigma: float, steps: int = 20) -> list[PoissonSampledGaussian]:
    return [PoissonSampledGaussian(sample_rate=0.1, noise_multiplier=sigma, steps=steps)]


def run(
    ledger: BudgetLedger, name: str, numbers: Sequence[int], units: str | None, sigma: float = 1.0
) -> None:
    """A run of 20 steps; units are letters, one for each image."""
    reservation = ledger.reserve(
        run_id=name,
        name=name,
        digests=images(*numbers),
        units=None if units is None else [ord(unit) for unit in units],
        planned=plan(sigma),
        accountant=PLD,
        delta=DELTA,
    )
    for _ in range(20):
        reservation.charge(plan(sigma, 1)[0])
    reservation.settle()


def total(ledger: BudgetLedger, numbers: Sequence[int], units: str | None = None):
    return ledger.total(
        images(*numbers),
        units=None if units is None else [ord(unit) for unit in units],
        delta=DELTA,
        accountant=PLD,
    )


def of(*sigmas: float, replaced: bool = False) -> float:
    events = [event for sigma in sigmas for event in plan(sigma)]
    relation = REPLACE if replaced else NeighboringRelation.ADD_OR_REMOVE_ONE
    accountant = make_accountant("pld", relation=relation)
    return epsilon_of_runs(events, delta=DELTA, accountant=accountant)


def test_the_same_groups_again_compose_for_the_group(ledger: BudgetLedger):
    run(ledger, "one", range(6), "aabbbc", sigma=1.0)
    run(ledger, "two", range(6), "xxyyyz", sigma=1.5)  # other names, the same groups
    assert len(ledger.datasets()) == 1
    spent = total(ledger, range(6), "aabbbc")
    assert not spent.mixed and spent.runs == 2
    assert spent.epsilon == pytest.approx(of(1.0, 1.5), rel=1e-6)


def test_more_images_of_the_same_patients_compose_for_the_patient(ledger: BudgetLedger):
    run(ledger, "one", [0, 1, 2], "aab")
    run(ledger, "two", [0, 1, 2, 3, 4], "aaaba".replace("b", "b")[:2] + "bac", sigma=1.5)
    spent = total(ledger, [0, 1, 2, 3, 4], "aabac")
    assert not spent.mixed and spent.epsilon == pytest.approx(of(1.0, 1.5), rel=1e-6)


def test_a_group_and_its_images_one_by_one_compose_under_replace_one(ledger: BudgetLedger):
    run(ledger, "grouped", range(6), "aabbbc", sigma=1.0)
    run(ledger, "single", range(6), None, sigma=1.5)
    for units in "aabbbc", None:
        spent = total(ledger, range(6), units)
        assert spent.mixed and spent.runs == 2
        assert spent.epsilon == pytest.approx(of(1.0, 1.5, replaced=True), rel=1e-6)


def test_an_image_alone_in_its_group_is_no_other_unit(ledger: BudgetLedger):
    run(ledger, "grouped", range(3), "abc", sigma=1.0)
    run(ledger, "single", range(3), None, sigma=1.5)
    assert len(ledger.datasets()) == 1
    run(ledger, "some", [2, 3, 4], "abb", sigma=2.0)
    spent = total(ledger, range(3))
    assert not spent.mixed and spent.epsilon == pytest.approx(of(1.0, 1.5, 2.0), rel=1e-6)


def test_other_groups_of_the_same_images_compose_under_replace_one(ledger: BudgetLedger):
    run(ledger, "by patient", range(4), "aabb", sigma=1.0)
    run(ledger, "by camera", range(4), "xyyx", sigma=1.0)
    spent = total(ledger, range(4), "aabb")
    assert spent.mixed and spent.epsilon == pytest.approx(of(1.0, 1.0, replaced=True), rel=1e-6)


def test_units_that_hang_together_over_a_third_data_set_are_followed(ledger: BudgetLedger):
    """Removing {0, 1} removes image 1 from the third run, which knows nothing of image 0."""
    run(ledger, "first", [0], None)
    run(ledger, "second", [0, 1], "aa")
    run(ledger, "third", [1, 2], "ab", sigma=1.5)
    spent = total(ledger, [0])
    assert not spent.mixed and spent.runs == 3
    assert spent.epsilon == pytest.approx(of(1.0, 1.0, 1.5), rel=1e-6)


def test_a_budget_is_kept_by_what_is_told(ledger: BudgetLedger):
    dataset = ledger.register(name="images", digests=images(*range(4)))
    ledger.set_budget(dataset.id, of(1.0, 1.0) * 1.001, DELTA)
    run(ledger, "one", range(4), "aabb")
    with pytest.raises(BudgetError, match="privacy units are not those of earlier runs") as error:
        run(ledger, "single", range(4), None)
    fits = error.value.fitting_steps
    assert fits is not None and fits < 20
    run(ledger, "two", range(4), "aabb")
    with pytest.raises(BudgetError):
        run(ledger, "three", range(4), "aabb")


def test_a_budget_alone_is_no_other_unit(ledger: BudgetLedger):
    """`set-budget data=` names images, and not how later runs group them."""
    dataset = ledger.register(name="images", digests=images(*range(4)))
    ledger.set_budget(dataset.id, 100, DELTA)
    run(ledger, "one", range(4), "aabb")
    run(ledger, "two", range(4), "aabb")
    assert not ledger.total(dataset.id, delta=DELTA, accountant=PLD).mixed


def test_an_image_in_two_groups_is_refused(ledger: BudgetLedger):
    with pytest.raises(ConfigurationError, match="two groups"):
        ledger.reserve(
            run_id="r", name="r", digests=[*images(0), *images(0)], units=[0, 1],
            planned=plan(1.0), accountant=PLD, delta=DELTA,
        )  # fmt: skip


def test_replacing_bounds_adding_and_removing():
    for rate, sigma, steps in (0.01, 0.6, 100), (0.1, 1.0, 20), (0.5, 3.0, 50), (1.0, 5.0, 10):
        event = PoissonSampledGaussian(sample_rate=rate, noise_multiplier=sigma, steps=steps)
        replaced = make_accountant("pld", relation=REPLACE)
        for delta in (1e-3, 1e-6):
            assert replaced.epsilon([event], delta=delta) >= PLD.epsilon([event], delta=delta)


def test_keys_are_never_written(sqlite: BudgetLedger, tmp_path: Path):
    run(sqlite, "one", range(4), "aabb")
    sqlite.close()
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    (joined,) = connection.execute("SELECT fingerprints FROM discreet_membership").fetchone()
    units = np.frombuffer(joined[4 * 16 :], dtype="<u4")
    assert sorted(units.tolist()) == [0, 0, 1, 1]  # numbers of the ledger's own


def test_ledgers_without_groups_are_read_and_raised(sqlite: BudgetLedger, tmp_path: Path):
    place = tmp_path / "ledger.sqlite"
    run(sqlite, "one", range(4), None)
    sqlite.close()

    def schema(value: str | None = None) -> str:
        connection = sqlite3.connect(place)
        if value is not None:
            connection.execute(f"UPDATE discreet_meta SET value='{value}' WHERE key='schema'")
            connection.commit()
        found = connection.execute("SELECT value FROM discreet_meta WHERE key='schema'").fetchone()
        connection.close()
        return found[0]

    schema("1")
    older = BudgetLedger.open(place)
    run(older, "two", range(4), None)
    assert schema() == "1"
    run(older, "three", range(4), "aabb")
    assert schema() == "2"
    older.close()


def test_units_that_went_missing_are_noticed(sqlite: BudgetLedger, tmp_path: Path):
    run(sqlite, "one", range(4), "aabb")
    run(sqlite, "two", range(5), None)
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute("UPDATE discreet_membership SET fingerprints = substr(fingerprints, 1, 64)")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError, match="not what was written"):
        total(sqlite, range(4), "aabb")


# ---- against the definition ----


def worst(members: dict[int, Members], dataset: int, charged: set[int]):
    """Classes by the definition, image for image, on small sets."""
    parts: list[set[bytes]] = []
    for number in charged:
        m = members[number]
        units = range(len(m.images)) if m.units is None else m.units.tolist()
        grouped: dict[int, set[bytes]] = {}
        for image, unit in zip(m.images.tolist(), units, strict=True):
            grouped.setdefault(unit, set()).add(image)
        parts += grouped.values()
    merged = True
    while merged:
        merged = False
        for one, other in combinations(parts, 2):
            if one & other:
                parts.remove(one)
                parts.remove(other)
                parts.append(one | other)
                merged = True
                break
    whole, mixed = set(), set()
    for image in members[dataset].images.tolist():
        part = next((p for p in parts if image in p), {image})
        held = {n: [i for i in m.images.tolist() if i in part] for n, m in members.items()}
        several = False
        for number in charged:
            m = members[number]
            units = list(range(len(m.images))) if m.units is None else m.units.tolist()
            own = {u for i, u in zip(m.images.tolist(), units, strict=True) if i in part}
            several |= len(own) > 1
        if several:
            mixed.add(frozenset(n for n, m in members.items() if image in m.images.tolist()))
        else:
            whole.add(frozenset(n for n, found in held.items() if found))
    return whole, mixed


@pytest.mark.parametrize("seed", range(60))
def test_classes_are_those_of_the_definition(seed: int):
    random = np.random.default_rng(seed)
    members = {}
    for number in range(1, int(random.integers(2, 6))):
        chosen = random.choice(8, size=int(random.integers(1, 7)), replace=False).tolist()
        units = random.integers(0, 4, size=len(chosen)).tolist() if random.random() < 0.7 else None
        members[number] = members_of(KEY, images(*chosen), units)
    charged = {n for n in members if random.random() < 0.8}
    found = classes_of(1, members, charged=charged)
    whole, mixed = worst(members, 1, charged)
    plain, replaced = set(found.all) - found.mixed, found.mixed
    # Nothing is told smaller than it is …
    for wanted in mixed:
        assert any(wanted <= c for c in replaced)
    for wanted in whole:
        assert any(wanted <= c for c in (*plain, *replaced))
    # … and nothing is made up.
    assert replaced <= mixed
    assert plain <= whole
