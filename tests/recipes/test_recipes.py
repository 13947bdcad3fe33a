"""Recipes: public numbers in, a whole run out, and what the user says wins."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discreet.arguments import TRAINABLE_PARTS, PrivacyArguments
from discreet.arguments.split import default_of
from discreet.errors import ConfigurationError
from discreet.planning import complete, plan_training
from discreet.planning.cost import StepTime
from discreet.recipes import RATES_OF_OTHERS, RECIPES, PublicFacts, choose
from discreet.recipes.document import as_markdown

DOCUMENT = Path(__file__).parents[2] / "docs" / "recipes.md"


def facts(population: int = 1008, **changes: Any) -> PublicFacts:
    values: dict[str, Any] = {"population": population, "pretrained": True, "imgsz": 160}
    return PublicFacts(**{**values, **changes})


def chosen(given: dict[str, Any] | None = None, recipe: str = "auto", **known: Any) -> dict:
    return choose(recipe, given or {}, facts=facts(**known)).values()


def test_a_thousand_images():
    values = chosen()
    assert (values["steps"], values["batch"], values["clipping"]) == (160, 252, "automatic")
    assert values["trainable"] == "class_film+classes"
    assert chosen(trained_at=640)["batch"] == 140  # enlarged: fewer passes
    assert chosen({"zoom": 2})["steps"] == 100


@pytest.mark.parametrize(
    ("imgsz", "trained_at", "zoom"),
    [(160, 640, 2), (161, 640, 1), (128, 640, 2), (80, 640, 4), (640, 640, 1), (160, None, 1),
     (160, 160, 1), (64, 224, 1), (64, 5120, 16)],
)  # fmt: skip
def test_small_images_are_enlarged_to_half_of_what_the_weights_know(
    imgsz: int, trained_at: int | None, zoom: int
):
    assert chosen(imgsz=imgsz, trained_at=trained_at)["zoom"] == zoom
    for task in ("classify", "segment"):
        assert chosen(imgsz=imgsz, trained_at=trained_at, task=task)["zoom"] == 1


@pytest.mark.parametrize(
    ("population", "passes"), [(10, 40), (1008, 40), (6885, 23.2), (16_000, 10), (10**6, 10)]
)
def test_passes_shrink_with_the_data(population: int, passes: float):
    values = chosen(population=population)
    assert values["steps"] * values["batch"] / population == pytest.approx(passes, rel=0.25)
    assert 1 <= values["batch"] <= population


@given(
    population=st.integers(1, 10**6),
    recipe=st.sampled_from(["auto", "plain"]),
    pretrained=st.booleans(),
    given=st.fixed_dictionaries(
        {},
        optional={"batch": st.integers(1, 10**4), "steps": st.integers(1, 10**4)},
    ),
)
def test_every_choice_makes_a_run(
    population: int, recipe: str, pretrained: bool, given: dict[str, int]
):
    values = choose(recipe, given, facts=facts(population, pretrained=pretrained)).values()
    assert ("steps" in values) != ("epochs" in values)
    assert values.items() >= given.items()
    if "batch" not in given:
        assert 1 <= values["batch"] <= population
    assert set(values["trainable"].split("+")) <= set(TRAINABLE_PARTS)


@pytest.mark.parametrize("recipe", ["auto", "plain"])
@pytest.mark.parametrize(
    "asked",
    [
        {"trainable": "all"}, {"clipping": "flat"}, {"lr0": 0.3}, {"box": 7.5}, {"epochs": 3},
        {"steps": 7, "batch": 9}, {"balance": 0.0}, {"standardise": False}, {"norm_lr": 1.0},
    ],
)  # fmt: skip
def test_what_the_user_gives_wins(recipe: str, asked: dict[str, Any]):
    made = choose(recipe, asked, facts=facts())
    values = {**asked, **made.values()}
    assert values.items() >= asked.items()
    assert not [c for c in made.choices if c.setting in asked and c.why is not None]
    assert not ({"steps", "epochs"} <= values.keys())


def test_batch_and_steps_keep_the_passes():
    assert chosen({"steps": 80})["batch"] == 504
    assert chosen({"batch": 504})["steps"] == 80
    assert chosen({"epochs": 5})["batch"] == 252
    assert chosen({"steps": 10})["batch"] == 1008  # no more than there are


@pytest.mark.parametrize("recipe", ["auto", "plain"])
def test_the_recipes_own_optimizer_keeps_its_rates_where_it_is_given(recipe: str):
    for named in ("auto", "Adam", "adam"):
        values = chosen({"optimizer": named}, recipe)
        assert {**values, "optimizer": "Adam"} == chosen(recipe=recipe)


@pytest.mark.parametrize("named", ["SGD", "AdamW"])
def test_another_optimizer_takes_ultralytics_rates_along_and_says_so(named: str):
    made = choose("auto", {"optimizer": named, "lrf": 0.5}, facts=facts())
    values = made.values()
    assert values["optimizer"] == named and values["lrf"] == 0.5
    rates = {name: default_of(name) for name in RATES_OF_OTHERS}
    assert values.items() >= {**rates, "lrf": 0.5}.items()
    whys = {c.setting: c.why for c in made.choices if c.setting in rates and c.setting != "lrf"}
    assert len(whys) == 3 and all("Ultralytics' default" in (why or "") for why in whys.values())


def test_rates_follow_what_trains():
    assert chosen()["lr0"] == 0.05
    assert chosen({"trainable": "all"})["lr0"] == 0.002
    assert chosen({"trainable": "whole_head+film"})["lr0"] == 0.005
    assert chosen(recipe="plain")["lr0"] == 0.012
    assert chosen({"trainable": "head"})["lr0"] == 0.02


def test_rates_are_smaller_where_noise_is_loud():
    asked = ((1008, 8), (1008, 2), (6885, 1), (6885, 2), (6885, 8))
    rates = [chosen(population=n, epsilon=e)["lr0"] for n, e in asked]
    assert rates == pytest.approx([0.05, 0.03, 0.05, 0.012, 0.012])
    assert chosen(recipe="plain", population=300, epsilon=8)["lr0"] == 0.012  # γ and β: as it is


LEARNS = {"trainable": "film+classes", "zoom": 1, "lr0": 0.012, "hsv_s": 0.7, "scale": 0.5}
STAYS = {"trainable": "class_film+classes", "zoom": 2, "lr0": 0.05, "hsv_s": 0.0, "scale": 0.0}


@pytest.mark.parametrize(
    ("population", "epsilon", "expected"),
    [(6885, 8, LEARNS), (2500, 8, LEARNS), (4999, 2, STAYS), (1008, 8, STAYS), (1250, None, LEARNS),
     (1249, None, STAYS)],
)  # fmt: skip
def test_features_learn_where_there_is_enough_data(
    population: int, epsilon: float | None, expected: dict[str, Any]
):
    values = chosen(population=population, epsilon=epsilon, imgsz=128, trained_at=640)
    assert values.items() >= expected.items()


@pytest.mark.parametrize(
    ("classes", "population", "expected"),
    [(31, 6885, LEARNS), (10, 5000, LEARNS), (10, 4999, STAYS), (9, 6885, STAYS),
     (None, 6885, STAYS)],
)  # fmt: skip
def test_features_learn_sooner_where_there_are_many_classes(
    classes: int | None, population: int, expected: dict[str, Any]
):
    values = chosen(classes=classes, population=population, epsilon=1, imgsz=128, trained_at=640)
    assert values.items() >= expected.items()


@pytest.mark.parametrize(
    ("population", "epsilon", "given", "expected"),
    [(6885, 8, {}, (2, 1000)), (6885, 2, {}, (4, 500)), (6885, None, {}, (2, 1000)),
     (12_500, 8, {}, (1, 1000)), (6885, 1, {}, (1, 1000)), (1008, 8, {}, (1, 252)),
     (6885, 2, {"views": 1}, (1, 1000)), (6885, 8, {"views": 8}, (8, 250)),
     (6885, 2, {"trainable": "classes"}, (1, 1000)), (1008, 8, {"views": 4}, (4, 252))],
)  # fmt: skip
def test_views_take_the_place_of_images_where_features_learn_through_noise(
    population: int, epsilon: float | None, given: dict[str, Any], expected: tuple[int, int]
):
    values = chosen(given, population=population, epsilon=epsilon, imgsz=128)
    assert (values["views"], values["batch"]) == expected
    assert values["steps"] == 160
    # A batch that is given has as many steps as without views.
    assert chosen({**given, "batch": 1000}, population=6885, epsilon=epsilon)["steps"] == 160


@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_features_of_other_tasks_stay(task: str):
    values = chosen(population=10**6, epsilon=8, task=task)
    assert (values["trainable"].split("+")[0], values["scale"]) == ("class_film", 0.0)


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [("class_film+classes", {"zoom": 2, "scale": 0.0}), ("classes", {"zoom": 2, "hsv_s": 0.0}),
     ("film+head", {"zoom": 1, "scale": 0.5}), ("all", {"zoom": 1, "translate": 0.1})],
)  # fmt: skip
def test_zoom_and_variety_follow_what_trains(trainable: str, expected: dict[str, Any]):
    values = chosen({"trainable": trainable}, population=6885, epsilon=8, trained_at=640)
    assert values.items() >= expected.items()


def test_canaries_are_nothing_to_learn_from():
    values = chosen(population=6008, canaries=5000, epsilon=8, trained_at=640)
    assert (values["trainable"], values["lr0"]) == ("class_film+classes", 0.05)
    assert chosen(population=5400, canaries=5000, epsilon=8)["lr0"] == pytest.approx(0.03)


def test_a_run_that_goes_on_keeps_what_was_chosen():
    begun = choose("auto", {"box": 7.5}, facts=facts(population=1008, epsilon=8)).by_rule()
    assert "box" not in begun
    again = choose("auto", {"box": 7.5}, facts=facts(6885, epsilon=8), begun_with=begun)
    assert again.by_rule() == begun
    # What the user gives still wins.
    other = choose("auto", {"lr0": 0.5}, facts=facts(6885, epsilon=8), begun_with=begun)
    assert other.values()["lr0"] == 0.5


def test_arguments_are_completed_once():
    asked = PrivacyArguments(epsilon=8)
    made, why = complete(asked, facts=facts())
    again, _ = complete(made, facts=facts())
    assert again == made
    assert (made.steps, made.batch, made.epochs) == (160, 252, None)
    assert why.values()["trainable"] == made.trainable
    assert plan_training(asked, population=1008) == plan_training(made, population=1008)


def test_no_more_images_are_read_than_time_allows():
    def images(given: dict[str, Any] | None = None, **known: Any) -> float:
        values = chosen(given, **known)
        return values["steps"] * values["batch"] * values["views"]

    usual = images()
    assert images(images_in_time=10_000) == pytest.approx(10_000, rel=0.02)
    assert usual > 40_000
    assert images(images_in_time=10**9) == usual
    assert images(images_in_time=1) == 160  # one an expected step
    features = {"population": 6885, "epsilon": 8}
    assert images(images_in_time=50_000, **features) == pytest.approx(50_000, rel=0.02)
    given = {"batch": 50}
    assert images(given, images_in_time=50_000, **features) == pytest.approx(50_000, rel=0.02)
    assert chosen(given, images_in_time=10_000)["steps"] == 200
    for known in ({"pretrained": False}, {"recipe": "plain"}):
        assert chosen(images_in_time=5 * 1008 + 1, **known)["epochs"] == 5
        assert chosen(images_in_time=1, **known)["epochs"] == 1


def test_the_time_is_asked_for_what_trains_once_a_run_begins():
    asked = PrivacyArguments(epsilon=8, hours=0.5)
    known = facts(trained_at=640)
    time = StepTime(
        model="m", imgsz=160, device="CPU", seconds_per_image=0.2, seconds_per_step=0,
        parameters=1, seconds_per_new_image=0.1,
    )  # fmt: skip
    heard: list[tuple[str, int]] = []

    def time_of(trainable: str, zoom: int) -> StepTime:
        heard.append((trainable, zoom))
        return time

    made, chosen = complete(asked, facts=known, time_of=time_of)
    assert heard == [("class_film+classes", 2)]
    assert (made.steps, made.batch) == (100, 60)  # 1800 s / 0.3 s
    complete(PrivacyArguments(epsilon=8), facts=known, time_of=time_of)
    again, _ = complete(asked, facts=known, time_of=time_of, begun_with=chosen.by_rule())
    assert len(heard) == 1 and again == made
    assert plan_training(made, population=1008).mechanism.expected_batch_size == 60


def test_what_cannot_fit_into_the_time_is_refused():
    step = StepTime(
        model="m", imgsz=160, device="CPU", seconds_per_image=0.3, seconds_per_step=0, parameters=1
    )
    for more, least, way_out in (
        ({}, 160 * 0.3, "hours=0.014 or more, or steps= of your own"),
        ({"batch": 100}, 100 * 0.3, "hours=0.009 or more, or a smaller batch"),
        ({"steps": 50}, 50 * 0.3, "hours=0.005 or more, or fewer steps"),
        ({"recipe": "plain"}, 1008 * 0.3, "hours=0.084 or more, or steps= of your own"),
    ):
        asked = PrivacyArguments(epsilon=8, hours=0.9 * least / 3600, **more)
        with pytest.raises(ConfigurationError, match="the shortest run takes about") as error:
            complete(asked, facts=facts(), time_of=lambda *_: step)
        assert way_out in str(error.value.do)
        asked = PrivacyArguments(epsilon=8, hours=1.01 * least / 3600, **more)
        complete(asked, facts=facts(), time_of=lambda *_: step)
    for known in ({"pretrained": False}, {"recipe": "plain"}):
        values = chosen({"steps": 100}, images_in_time=500, **known)
        assert values["batch"] == 5


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"steps": 300},
        {"batch": 17},
        {"recipe": "plain"},
        {"recipe": "plain", "steps": 40},
        {"views": 3},
        {"trainable": "all", "batch": 2},
    ],
)
@pytest.mark.parametrize("per_step", [0.0, 2.0])
@pytest.mark.parametrize("hours", [0.4, 1.0, 3.0])
def test_a_run_takes_no_longer_than_it_may(given: dict[str, Any], per_step: float, hours: float):
    step = StepTime(
        model="m", imgsz=160, device="CPU", seconds_per_image=0.2, seconds_per_step=per_step,
        parameters=1, seconds_per_new_image=0.1,
    )  # fmt: skip
    asked = PrivacyArguments(epsilon=8, hours=hours, **given)
    made, _ = complete(asked, facts=facts(), time_of=lambda *_: step)
    assert made.batch is not None
    steps = made.steps or math.ceil((made.epochs or 0) * 1008 / made.batch)
    seconds = steps * per_step + 0.3 * steps * made.batch * (made.views or 1)
    assert seconds <= 3600 * hours
    without, _ = complete(asked.model_copy(update={"hours": None}), facts=facts())
    # All of the time is used but for less than an image a step, a step, or an epoch.
    least = max(0.3 * steps * (made.views or 1), per_step + 0.3 * made.batch * (made.views or 1))
    if made.steps is None:
        least = math.ceil(1008 / made.batch) * (per_step + 0.3 * made.batch)
    assert (made.steps, made.batch, made.epochs) == (
        without.steps, without.batch, without.epochs
    ) or seconds > 3600 * hours - 1.01 * least  # fmt: skip


def test_scratch_trains_everything():
    values = chosen(pretrained=False)
    assert (values["trainable"], values["epochs"], values["batch"]) == ("all", 20, 252)


def test_the_document_is_that_of_the_rules():
    again = "python -m discreet.recipes > docs/recipes.md"
    assert DOCUMENT.read_text(encoding="utf-8") == as_markdown(), again
    for rules in RECIPES.values():
        assert all(rule.why and rule.table for rule in rules)
