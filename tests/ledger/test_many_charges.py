"""A ledger with a million charges judges a new run as it would with one.

How fast is measured by `python -m benchmarks.budget`.
"""

from __future__ import annotations

import pytest
from benchmarks.budget import IMAGES, RUNS, fill, step
from benchmarks.budget import images as made_up

from discreet.errors import BudgetError
from discreet.ledger import BudgetLedger
from tests.ledger.conftest import DELTA, PLD


@pytest.mark.slow
def test_a_new_run_among_a_million_charges(sqlite: BudgetLedger):
    digests = made_up(0, IMAGES)
    sqlite.register(name="blood", digests=digests)
    fill(sqlite)
    spent = PLD.coarse().epsilon([step(2 + number / RUNS) for number in range(1, RUNS + 1)],
                                 delta=DELTA)  # fmt: skip
    sqlite.set_budget("blood", 1.05 * spent, DELTA, accountant=PLD.coarse())

    def reserve(name: str, noise_multiplier: float) -> None:
        sqlite.reserve(
            run_id=name, name="blood", digests=digests, planned=[step(noise_multiplier)],
            accountant=PLD.coarse(), delta=DELTA,
        )  # fmt: skip

    with pytest.raises(BudgetError):
        reserve("too much", 0.3)
    reserve("a little", 10.0)
