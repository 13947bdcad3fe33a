from __future__ import annotations

import pytest

from discreet.accounting import PoissonSampledGaussian, make_accountant
from discreet.arguments import PrivacyArguments
from discreet.planning import make_plan
from discreet.planning.table import batches_around, epochs_around

pytestmark = pytest.mark.usefixtures("without_prv")


@pytest.mark.parametrize(
    ("batch", "population", "sizes"),
    [
        (256, 100_000, [128, 256, 512, 1024]),
        (1, 1, [1]),
        (1, 3, [1, 2, 3]),
        (4, 4, [1, 2, 4]),
        (100, 100, [13, 25, 50, 100]),
        (100, 150, [25, 50, 100, 150]),
        (3, 1000, [2, 3, 6, 12]),
    ],
)
def test_batches(batch: int, population: int, sizes: list[int]):
    assert batches_around(batch, population) == sizes


@pytest.mark.parametrize(
    ("epochs", "choices"),
    [(1, [1, 2, 4]), (2, [1, 2, 4]), (5, [2, 5, 10]), (50, [25, 50, 100]), (0.4, [0.4, 0.8, 1.6])],
)
def test_epochs(epochs: float, choices: list[float]):
    assert epochs_around(epochs) == pytest.approx(choices)


@pytest.mark.parametrize(
    ("epsilon", "accountant"), [pytest.param(8, "pld", marks=pytest.mark.slow), (1, "rdp")]
)
def test_every_cell_meets_the_target_with_little_to_spare(epsilon: float, accountant: str):
    asked = PrivacyArguments(epsilon=epsilon, batch=64, epochs=2, accountant=accountant)
    made = make_plan(asked, population=512)
    exact = make_accountant(accountant)  # type: ignore[arg-type]
    assert len(made.table) == 12
    assert sum(cell.requested for cell in made.table) == 1
    for cell in made.table:
        assert cell.noise_multiplier is not None
        event = PoissonSampledGaussian(
            sample_rate=cell.sample_rate,
            noise_multiplier=cell.noise_multiplier,
            steps=cell.steps,
        )
        spent = exact.epsilon([event], delta=made.training.mechanism.delta)
        assert 0.975 * epsilon < spent <= epsilon
        assert cell.epsilon[accountant] == pytest.approx(spent, rel=0.02)
        assert cell.noise_per_coordinate == cell.noise_multiplier / cell.expected_batch_size


def test_a_target_out_of_reach_of_a_neighbour_is_a_gap():
    # Twice the epochs need more than the 10,000 that calibration stops at.
    asked = PrivacyArguments(epsilon=8e-3, batch=1, epochs=500, delta=1e-6)
    made = make_plan(asked, population=1)
    gaps = [cell.epochs for cell in made.table if cell.noise_multiplier is None]
    assert gaps == [1000]
    (cell,) = (cell for cell in made.table if cell.epochs == 1000)
    assert set(cell.epsilon.values()) == {None} and cell.noise_per_coordinate is None
    assert " – " in made.to_text()
