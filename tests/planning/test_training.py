from __future__ import annotations

import math

import pytest

from discreet.arguments import PrivacyArguments
from discreet.errors import AccountingError, ConfigurationError
from discreet.planning import (
    TrainingPlan,
    plan_rows,
    plan_training,
    plan_warnings,
)
from discreet.recipes import default_batch_size


def plan(population: int, **arguments: object) -> TrainingPlan:
    return plan_training(PrivacyArguments(**arguments), population=population)


def test_steps_are_the_expected_passes_rounded_up():
    made = plan(1008, epsilon=8, batch=100, epochs=3)
    assert made.mechanism.steps == math.ceil(3 * 1008 / 100) == 31
    assert made.mechanism.sample_rate == 100 / 1008
    assert made.mechanism.delta == 1e-4


def test_ends_at_or_under_the_target_and_close_to_it():
    made = plan(1008, epsilon=8, batch=252, epochs=20)
    assert 7.9 < made.promised.epsilon <= 8


def test_noise_multiplier_is_taken_as_given():
    made = plan(4, noise_multiplier=1.2, batch=4, steps=100, delta=1e-5)
    assert made.promised.epsilon == pytest.approx(69.46, rel=2e-3)
    assert made.target_epsilon is None


def test_epochs_and_steps_agree():
    made = plan(1000, epsilon=8, batch=300, epochs=3)
    assert made.epochs == 3
    epochs = [made.epoch_of(step) for step in range(1, made.mechanism.steps + 1)]
    assert epochs == sorted(epochs)
    assert epochs[0] == 1
    assert epochs[-1] == 3
    lasts = [made.last_step_of(epoch) for epoch in (1, 2, 3)]
    assert lasts == [3, 6, 10]
    assert [made.epoch_of(step) for step in lasts] == [1, 2, 3]


def test_epsilon_by_epoch_grows_to_the_promise():
    made = plan(1000, epsilon=8, batch=300, epochs=3)
    values = list(made.epsilon_by_epoch().values())
    assert values == sorted(values)
    assert values[-1] == pytest.approx(made.promised.epsilon, rel=1e-9)


@pytest.mark.parametrize(
    ("batch", "do"),
    [(2, "a larger batch, or another clipping"), (4, "take another clipping")],
)
def test_a_count_that_no_noise_makes_up_for_is_named(batch: int, do: str):
    with pytest.raises(AccountingError, match="were not clipped, with noise of") as caught:
        plan(4, epsilon=8, batch=batch, steps=3, clipping="adaptive")
    assert caught.value.where == "clipping=adaptive"
    assert do in str(caught.value)
    assert plan(4000, epsilon=8, batch=200, steps=3, clipping="adaptive").promised.epsilon <= 8


@pytest.mark.parametrize(("population", "batch"), [(10, 10), (100, 64), (1008, 252), (10**6, 1024)])
def test_default_batch(population: int, batch: int):
    assert default_batch_size(population) == batch


def test_a_batch_above_the_population_is_refused():
    with pytest.raises(ConfigurationError, match="batch=10 or less"):
        plan(10, epsilon=8, batch=11)


def test_an_epsilon_out_of_reach_is_refused():
    with pytest.raises(AccountingError):
        plan(1000, epsilon=1e-9)


def warnings(made: TrainingPlan, parameters: int = 24_000, *, secure: bool = True) -> str:
    return "\n".join(plan_warnings(made, parameters=parameters, secure=secure))


def test_coco8_is_told_what_its_epsilon_means():
    text = warnings(plan(4, noise_multiplier=1.2, batch=4, steps=100, delta=1e-5))
    assert "ε = 69.46 is no privacy to speak of" in text


def test_coco8_is_told_that_it_is_too_small_for_epsilon_8():
    assert "4 images are too few" in warnings(plan(4, epsilon=8))


def test_a_teacher_that_has_spent_nearly_all_is_named_as_the_reason():
    def taught(epsilon: float) -> TrainingPlan:
        teacher = plan(1008, epsilon=7.99).mechanism.planned_events()
        asked = PrivacyArguments(epsilon=epsilon, trainable="classes")
        return plan_training(asked, population=1008, before=teacher)

    text = warnings(taught(8))
    assert "the teacher has spent nearly all of the ε asked for: 7.99 of 8.00" in text
    assert "times larger" in text and "too few" not in text
    assert "teacher" not in warnings(taught(16))


def test_a_thousand_images_are_not_warned_of():
    assert warnings(plan(1008, epsilon=8)) == ""


def test_runs_that_are_not_private_say_so():
    assert "NOT PRIVATE" in warnings(plan(1008, noise_multiplier=0))
    assert "NOT PRIVATE" in warnings(plan(1008, epsilon=8), secure=False)


def test_rows_name_what_matters():
    made = plan(1008, epsilon=8)
    text = str(plan_rows(made, trainable="film+head", parameters=6297))
    for word in ("1,008", "252", "160", "film+head", "6,297", "add or remove one image"):
        assert word in text
