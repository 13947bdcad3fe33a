from __future__ import annotations

import pytest

from discreet.arguments import PrivacyArguments
from discreet.planning import Plan, make_plan
from discreet.planning.text import duration

pytestmark = pytest.mark.usefixtures("without_prv")


def plan(population: int, **arguments: object) -> Plan:
    return make_plan(PrivacyArguments(**arguments), population=population)


@pytest.fixture(scope="module")
def plans(without_prv: None) -> dict[str, Plan]:
    return {
        "strong": plan(3000, epsilon=1, batch=3000, epochs=5),
        "moderate": plan(3000, epsilon=3, batch=3000, epochs=5),
        "weak": plan(3000, epsilon=8, batch=3000, epochs=5),
        "no privacy": plan(3000, epsilon=20, batch=3000, epochs=5),
        "drowned": plan(20, epsilon=8, batch=20),
        "sampled": plan(2000, noise_multiplier=1.0, batch=128, steps=30),
        "huge": plan(10**7, noise_multiplier=0.01, batch=10**7, steps=10**5),
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("strong", "ε = 1.0: strong privacy"),
        ("moderate", "ε = 3.0: moderate privacy"),
        ("weak", "ε = 8.0: weak privacy"),
        ("weak", "by a factor of at most 2,9"),
        ("no privacy", "no privacy to speak of; for ε = 8 you would need σ = "),
        ("drowned", "20 images, σ ="),
        ("drowned", "The noise drowns the images"),
        ("sampled", "30 steps of 128 images spend ε ="),
    ],
)
def test_verdicts(plans: dict[str, Plan], name: str, words: str):
    assert words in plans[name].verdict


def test_a_private_and_useful_plan_is_not_scolded(plans: dict[str, Plan]):
    assert "drowns" not in plans["weak"].verdict and "1/n" not in plans["weak"].verdict


def test_delta_at_one_over_n_is_named():
    made = plan(4, noise_multiplier=3, batch=4, steps=2, delta=0.25)
    assert "δ = 0.25 is not below 1/n" in made.verdict
    (text,) = (advice.text for advice in made.advice if advice.about == "delta")
    assert text.startswith("Use ") and "may fail for 1 images" in text


def test_what_is_told_is_never_less_than_what_is_spent(plans: dict[str, Plan]):
    for made in plans.values():
        told = made.verdict.partition("ε = ")[2].partition(":")[0]
        assert float(told.replace(",", "")) >= made.training.promised.epsilon


def test_every_setting_has_advice_with_a_reason(plans: dict[str, Plan]):
    for made in plans.values():
        assert [advice.about for advice in made.advice] == [
            "batch", "noise_multiplier", "max_grad_norm", "delta", "steps", "lr0", "warmup_epochs",
        ]  # fmt: skip
        assert all(len(advice.text) > 60 for advice in made.advice)


def test_a_larger_batch_is_advised_where_it_lowers_the_noise():
    made = plan(100_000, epsilon=8, batch=256, epochs=2)
    (text,) = (advice.text for advice in made.advice if advice.about == "batch")
    assert text.startswith("Try 1,024 in place of 256")


def test_the_recipe_is_not_advised_against():
    made = plan(292, epsilon=8)
    (text,) = (advice.text for advice in made.advice if advice.about == "batch")
    assert text.startswith(f"The recipe takes {made.training.mechanism.expected_batch_size}")


@pytest.mark.parametrize("name", ["strong", "no privacy", "drowned", "sampled", "huge"])
def test_text_fits_80_columns(plans: dict[str, Plan], name: str):
    lines = plans[name].to_text().splitlines()
    assert [line for line in lines if len(line) > 80 or line != line.rstrip()] == []
    assert "\x1b" not in "".join(lines)
    assert lines[-1] == "Nothing was spent."


def test_the_text_holds_everything(plans: dict[str, Plan]):
    text = plans["sampled"].to_text()
    assert text.startswith("2,000 images, σ = 1, 30 steps of 128 images spend ε = ")
    for line in (
        "  training images n    2,000",
        "  expected batch B     128",
        "  sample rate q = B/n  0.064, Poisson",
        "  steps                30 (1.92 epochs)",
        "  noise multiplier σ   1",
        "  trained              film+classes",
    ):
        assert f"\n{line}\n" in text
    for words in ("(PLD)", "(RDP)", "(PRV)", "replace one", "(2 images)", "no sampling"):
        assert words in text
    assert sum(line.startswith("> ") for line in text.splitlines()) == 1


def test_a_narrower_page(plans: dict[str, Plan]):
    prose = plans["sampled"].to_text(width=60).split("Other batch sizes")[0]
    assert max(len(line) for line in prose.splitlines()) <= 60


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"), (0.04, "0.04 s"), (40, "40 s"), (119, "119 s"), (720, "12 min"),
        (12_240, "3.4 h"), (165_600, "46 h"), (172_800, "2.0 d"), (1_296_000, "15 d"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, text: str):
    assert duration(seconds) == text


def test_numbers_are_rounded_up():
    from discreet.planning.verdict import one_decimal, two_decimals

    assert [one_decimal(x) for x in (3.01, 69.457, 7.0, 1234.5)] == [
        "3.1",
        "69.5",
        "7.0",
        "1,234.5",
    ]
    assert two_decimals(5.0019194e8) == "5.01e+8" and two_decimals(float("inf")) == "∞"
