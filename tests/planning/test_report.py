from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from discreet.arguments import PrivacyArguments
from discreet.errors import AccountingError, ConfigurationError, DiscreetError, ModelError
from discreet.planning import Plan, figures, make_plan
from discreet.planning.cost import StepTime, usual_parameters
from discreet.terminal import SilentReporter

COCO8 = {"noise_multiplier": 1.2, "batch": 4, "steps": 100, "delta": 1e-5}


def plan(population: int, **arguments: object) -> Plan:
    return make_plan(PrivacyArguments(**arguments), population=population)


@pytest.fixture(scope="module")
def coco8() -> Plan:
    return plan(4, **COCO8)


@pytest.fixture(scope="module")
def hundred_thousand() -> Plan:
    """n = 100,000, B = 1024, σ = 1.2, 50 epochs, δ = 1e-5: a row of the oracle."""
    return plan(100_000, noise_multiplier=1.2, batch=1024, epochs=50, delta=1e-5)


# ---- the oracle ----


def test_coco8(coco8: Plan):
    assert coco8.epsilon["pld"] == pytest.approx(69.46, abs=0.01)
    assert coco8.epsilon["rdp"] == pytest.approx(72.98, abs=0.01)
    assert coco8.epsilon["prv"] == pytest.approx(69.47, abs=0.01)
    assert coco8.figures.without_sampling == coco8.epsilon["pld"]  # nothing was sampled
    assert coco8.verdict.startswith(
        "4 images, σ = 1.2, 100 full-batch steps spend ε = 69.5: no privacy to speak of; "
        "for ε = 8 you would need σ = 6.00."
    )
    assert coco8.seconds is None


def test_fifty_epochs(hundred_thousand: Plan):
    made = hundred_thousand
    assert made.steps == 4883 == math.ceil(50 * 100_000 / 1024)
    assert made.epsilon["pld"] == pytest.approx(3.087, abs=0.002)
    assert made.epsilon["rdp"] == pytest.approx(3.365, abs=0.001)
    assert made.epsilon["prv"] == pytest.approx(3.097, abs=0.001)
    assert made.figures.without_sampling == pytest.approx(41.7, abs=0.05)
    assert made.figures.replace_one == pytest.approx(5.59, abs=0.01)
    for size, epsilon in ((2, 6.90), (5, 21.7), (10, 56.8)):
        assert made.figures.groups[size] == pytest.approx(epsilon, rel=5e-3)
    assert list(made.figures.per_epoch)[-1] == 50
    assert made.figures.per_epoch[50] == made.epsilon["pld"]


def test_twice_the_epochs_are_in_the_table(hundred_thousand: Plan):
    (cell,) = (
        c for c in hundred_thousand.table if c.epochs == 100 and c.expected_batch_size == 1024
    )
    assert cell.steps == 9766
    assert cell.epsilon["pld"] == pytest.approx(4.542, rel=0.01)
    assert cell.epsilon["rdp"] == pytest.approx(4.926, abs=0.001)
    assert cell.epsilon["prv"] == pytest.approx(4.552, abs=0.06)


# ---- missing and infinite numbers ----


def test_without_noise_nothing_is_finite_and_json_says_null():
    made = plan(4, noise_multiplier=0, batch=4, steps=3)
    told = made.to_json()
    json.dumps(told, allow_nan=False)
    assert told["epsilon"] == {"pld": None, "rdp": None, "prv": None}
    assert told["groups"] == {"2": None, "5": None, "10": None}
    assert made.verdict.startswith("4 images, σ = 0: no noise, no privacy at all.")
    assert "∞ (PLD)" in made.to_text()


def test_an_accountant_that_cannot_answer_is_null_with_a_note(monkeypatch: pytest.MonkeyPatch):
    class Failing:
        def coarse(self) -> Failing:
            return self

        def epsilon(self, events: object, *, delta: float) -> float:
            raise AccountingError("it cannot")

    whole = figures.make_accountant
    monkeypatch.setattr(
        figures,
        "make_accountant",
        lambda name, **options: Failing() if name == "prv" else whole(name, **options),
    )
    made = plan(4, **COCO8)
    told = made.to_json()
    assert told["epsilon"]["prv"] is None and told["epsilon"]["pld"] > 69
    assert told["notes"] == ["PRV: it cannot."]
    assert "Note: PRV: it cannot." in made.to_text()


def test_prv_is_not_asked_where_it_would_take_minutes():
    made = plan(4, noise_multiplier=0.5, batch=4, steps=100)
    assert made.epsilon["prv"] is None
    assert "takes minutes" in made.figures.notes[0]


def test_errors_are_passed_on():
    with pytest.raises(ConfigurationError, match="more than the 4"):
        plan(4, epsilon=8, batch=5)
    with pytest.raises(AccountingError):
        plan(4, epsilon=1e-7, batch=4, delta=1e-9)


# ---- time ----

STEP = StepTime(
    model="m", imgsz=64, device="CPU", seconds_per_image=0.5, seconds_per_step=0.1, parameters=10
)


def test_times_come_from_what_was_measured():
    asked: list[object] = []

    def measure(model: str | None, imgsz: int, trainable: str | None, zoom: int) -> StepTime:
        asked.append((model, imgsz, trainable, zoom))
        return STEP

    made = make_plan(
        PrivacyArguments(**COCO8), population=4, model="m.pt", imgsz=64, measure=measure
    )
    assert asked == [("m.pt", 64, "class_film+classes", 4)]
    assert made.seconds == pytest.approx(100 * (0.1 + 4 * 0.5))
    assert made.to_json()["measured"]["parameters"] == 10
    (twice,) = (c for c in made.table if c.epochs == 200 and c.expected_batch_size == 4)
    assert twice.seconds == pytest.approx(2 * made.seconds)
    assert "4 min on this machine (CPU, m at 64 px" in " ".join(made.to_text().split())


@pytest.mark.slow
def test_a_plan_fits_into_the_hours_that_are_given():
    asked = PrivacyArguments(epsilon=8, hours=0.25)
    measured: list[object] = []

    def measure(*what: object) -> StepTime:
        measured.append(what)
        return STEP

    made = make_plan(asked, population=1000, model="m.pt", imgsz=160, measure=measure)
    assert len(measured) == 1
    assert made.seconds == pytest.approx(900, rel=0.05)
    assert made.training.mechanism.steps == 100
    grouped = asked.model_copy(update={"group_regex": "(a)", "max_images_per_unit": 3})
    by_group = make_plan(grouped, population=1000, model="m.pt", imgsz=160, measure=measure)
    batches = [it.training.mechanism.expected_batch_size for it in (made, by_group)]
    assert batches == [17, 5]  # of units, 890 s for 100 steps
    with pytest.raises(ConfigurationError, match="how many images fit") as error:
        make_plan(asked, population=1000)
    assert "hours=0.25" in str(error.value)


def test_what_is_kept_of_images_is_paid_once():
    step = dataclasses.replace(STEP, seconds_per_new_image=10.0)

    def seconds(**arguments: Any) -> float:
        settings, task = arguments.pop("settings", {}), arguments.pop("task", "detect")
        asked = PrivacyArguments(**{**COCO8, **arguments})
        made = make_plan(
            asked, population=4, model="m.pt", measure=lambda *_: step, settings=settings, task=task
        )
        assert made.seconds is not None
        return made.seconds

    known = 100 * (0.1 + 4 * 0.5)
    assert seconds() == pytest.approx(known + 2 * 4 * 10)  # an image and its mirror image
    anew = pytest.approx(known + 100 * 4 * 10)
    assert seconds(feature_cache=0) == anew
    assert seconds(recipe="plain", trainable="head") == anew  # the plain recipe does more than flip
    assert seconds(settings={"degrees": 10}) == seconds(settings={"mosaic": 0.5}, views=1) == anew
    assert seconds(settings={"flipud": 0.5}) == pytest.approx(known + 4 * 4 * 10)
    assert seconds(settings={"fliplr": 1}) == pytest.approx(known + 4 * 10)  # always the mirror
    assert seconds(teacher="t.pt", teacher_data="public") == seconds(task="classify") == anew


def test_a_plan_is_of_images_as_large_as_training_takes():
    made = plan_at(80)
    assert made == plan_at(96)
    assert made["zoom"] == 2 != plan_at(64)["zoom"]


def plan_at(imgsz: int) -> dict[str, Any]:
    made = make_plan(PrivacyArguments(**COCO8), population=4, imgsz=imgsz, trained_at=640)
    return made.chosen.values()


def test_every_view_is_paid_and_the_users_own_settings_are_not_chosen_again():
    asked = PrivacyArguments(**COCO8, views=3)
    made = make_plan(
        asked, population=4, model="m.pt", measure=lambda *_: STEP, settings={"lr0": 0.123}
    )
    assert made.seconds == pytest.approx(100 * (0.1 + 3 * 4 * 0.5))
    (rate,) = (choice for choice in made.chosen.choices if choice.setting == "lr0")
    assert (rate.value, rate.why) == (0.123, None)


@pytest.mark.parametrize(
    ("optimizer", "rate", "words"),
    [
        ("Adam", "0.05", "Adam scales each parameter by its own noise"),
        ("SGD", "0.01", "the recipe has rates for Adam alone"),
    ],
)
def test_the_rate_that_training_takes_is_told(optimizer: str, rate: str, words: str):
    made = make_plan(PrivacyArguments(**COCO8), population=4, settings={"optimizer": optimizer})
    told = {advice.about: advice.text for advice in made.advice}
    taken = made.chosen.values()["lr0"]
    assert told["lr0"].startswith(f"{taken:g} with {optimizer} is what training takes")
    assert words in told["lr0"]
    assert f"{taken:g}" == rate
    assert "lr0" in made.to_text().split("Chosen by recipe")[1].split("Advice")[0]
    for_adam = "bias correction" in told["warmup_epochs"], "divides both" in told["max_grad_norm"]
    assert for_adam == (optimizer == "Adam",) * 2


def test_an_architecture_trains_all_of_itself_as_in_training():
    seen: list[str | None] = []

    def measure(model: str | None, imgsz: int, trainable: str | None, zoom: int) -> StepTime:
        seen.append(trainable)
        return STEP

    asked = PrivacyArguments(**COCO8)
    made = make_plan(asked, population=4, model="yolov8n.yaml", measure=measure)
    assert made.trainable == "all" and seen == ["all"]


def test_a_model_that_cannot_be_opened_is_an_error():
    def measure(model: str | None, imgsz: int, trainable: str | None, zoom: int) -> StepTime:
        raise ModelError("there is no such file", where=f"model={model}")

    with pytest.raises(ModelError, match="no such file"):
        make_plan(PrivacyArguments(**COCO8), population=4, model="gone.pt", measure=measure)


@pytest.mark.parametrize(
    ("trainable", "count"),
    [
        ("all", 3157184), ("film+head", 42512), ("whole_head", 897648),
        ("film+whole_head", 906512), ("head+whole_head", 897648),
        ("film+head+whole_head", 906512),
    ],
)  # fmt: skip
def test_usual_parameters(trainable: str, count: int):
    assert usual_parameters(trainable) == count


# ---- epochs, progress ----


@pytest.mark.parametrize(
    ("epochs", "shown"),
    [(1, [1]), (3, [1, 2, 3]), (8, list(range(1, 9))), (100, [1, 15, 29, 43, 58, 72, 86, 100])],
)
def test_a_few_epochs_are_shown(epochs: int, shown: list[int]):
    assert figures.shown_epochs(epochs) == shown


def test_progress_is_told():
    class Listening(SilentReporter):
        heard: list[tuple[int, int]] = []  # noqa: RUF012
        stages: list[str] = []  # noqa: RUF012

        def stage(self, text: str) -> None:
            self.stages.append(text)

        def stage_progress(self, done: int, total: int) -> None:
            self.heard.append((done, total))

    reporter = Listening()
    make_plan(PrivacyArguments(**COCO8), population=4, reporter=reporter)
    assert [text.split()[0] for text in reporter.stages] == ["finding", "asking", "comparing"]
    ends = [done for done, total in reporter.heard if done == total]
    assert len(ends) == 2  # both stages reach their end, once


def test_a_plan_cannot_be_changed(coco8: Plan):
    with pytest.raises(AttributeError):
        coco8.verdict = "private"  # type: ignore[misc]
    assert issubclass(AccountingError, DiscreetError)
