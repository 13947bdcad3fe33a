"""Audits of whole runs: canaries are counted, charged, told of, and marked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from discreet.auditing.canaries import CanaryWatch, GradientCanaries
from discreet.cli import main
from discreet.errors import ConfigurationError, ModelError
from discreet.yolo._compat import load_weights
from discreet.yolo.audit import AuditedRun, audit_run
from discreet.yolo.membership import compare_membership

from .conftest import ARCHITECTURE, IMGSZ

pytestmark = pytest.mark.usefixtures("unchecked")

Audit = Callable[..., AuditedRun]
IMAGES = 24


@pytest.fixture(scope="module")
def audit(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    def start(*, attack: Any = "gradient", canaries: int = 1000, **given: Any) -> AuditedRun:
        arguments = {
            "data": str(scenes),
            "model": ARCHITECTURE,
            "epsilon": 3,
            "delta": 1e-5,
            "batch": (IMAGES + canaries) // 2,
            "steps": 4,
            "imgsz": IMGSZ,
            "val": False,
            "project": str(tmp_path_factory.mktemp("audits")),
        }
        return audit_run({**arguments, **given}, attack=attack, canaries=canaries)

    return start


@pytest.fixture(scope="module")
def white_box(audit: Audit) -> AuditedRun:
    return audit()


def test_a_correct_run_is_not_refuted(white_box: AuditedRun):
    result = white_box.result
    assert not result.refuted
    assert result.claimed_epsilon <= 3
    assert result.one_run.correct > result.one_run.guesses / 2  # it sees something


def test_every_canary_counts_in_the_population(white_box: AuditedRun):
    record = white_box.training.record
    assert record.data.training.units == IMAGES + 1000
    assert record.steps.executed == record.steps.charged == 4
    assert record.claim.epsilon == white_box.result.claimed_epsilon


def test_the_run_says_that_it_has_canaries(white_box: AuditedRun):
    record = json.loads((white_box.training.release / "privacy.json").read_text(encoding="utf-8"))
    assert record["purpose"] == "audit"
    assert record["audit"]["canaries"] == 1000
    assert record["audit"]["refuted"] is False
    assert any("for auditing only" in warning for warning in record["warnings"])
    assert load_weights(white_box.training.weights).audit_only is True


def test_the_drawn_canaries_are_among_the_units_of_the_step(white_box: AuditedRun):
    steps = (white_box.training.internal / "steps.csv").read_text(encoding="utf-8").splitlines()
    units = steps[0].split(",").index("drawn")
    drawn = np.array([float(line.split(",")[units]) for line in steps[1:]])
    # 24 images and about 500 canaries whose coin says "in", each drawn every other time.
    assert (drawn > 150).all() and (drawn < 400).all()


@pytest.mark.slow
@pytest.mark.checked
def test_only_the_steps_of_the_run_are_evidence(audit: Audit, monkeypatch: pytest.MonkeyPatch):
    """Not those that the check tries, which have no canaries: they would blunt the attack."""
    own, seen = CanaryWatch.scores, list[int]()

    def scores(self: CanaryWatch) -> Any:
        seen.append(self.steps)
        return own(self)

    monkeypatch.setattr(CanaryWatch, "scores", scores)
    run = audit(canaries=200)
    assert seen == [run.training.record.steps.executed] == [4]


@pytest.mark.slow
def test_whole_runs_show_three_tenths_of_epsilon_and_are_not_refuted(audit: Audit):
    """Chance leaves about one run in eight below; six of six are not left below by chance."""
    shown = 0.0
    for _ in range(6):
        result = audit(epsilon=8, canaries=8000).result
        assert not result.refuted
        shown = max(shown, result.one_run.epsilon)
        if shown >= 0.3 * 8:
            return
    pytest.fail(f"six runs of epsilon 8 show no more than {shown:.2f}")


@pytest.mark.slow
def test_an_attack_that_reads_the_coins_is_refuted(audit: Audit, monkeypatch: pytest.MonkeyPatch):
    """The alarm works: scores that know more than the run gave away exceed its claim."""

    def told(self: GradientCanaries, sums: Any) -> Any:
        return 100.0 * self.included

    monkeypatch.setattr(GradientCanaries, "read", told)
    monkeypatch.setattr(
        "discreet.auditing.canaries.CanaryWatch.images", lambda _, gradients: gradients
    )
    assert audit().result.refuted


@pytest.mark.slow
def test_image_canaries(audit: Audit):
    run = audit(attack="image", canaries=40, batch=32)
    assert not run.result.refuted
    assert run.result.canaries == 40 and 5 < run.result.included < 35
    assert run.training.record.data.training.units == IMAGES + 40
    assert run.training.record.purpose == "audit"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"resume": "somewhere"}, "not resumed"),
        ({"epsilon": None, "noise_multiplier": 0.0}, "claims no"),
        ({"canaries": 0}, "canaries=0"),
        (
            {"canaries": 1},
            r"canaries=1: so few could prove ε >= 0\.00 at most(.|\n)*give \d+ at the very least",
        ),
        ({"canaries": 1, "attack": "image"}, "canaries=1"),
        ({"canaries": 10**6, "batch": 50}, "coordinates"),
    ],
)
def test_what_cannot_be_audited_is_refused(audit: Audit, given: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        audit(**given)


def test_the_command_line(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [f"data={scenes}", f"model={ARCHITECTURE}", "epsilon=3", f"imgsz={IMGSZ}", "steps=2"]
    words += ["canaries=200", "val=False", f"project={tmp_path}", "--json"]
    assert main(["audit", *words]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["audit"]["canaries"] == 200
    assert facts["audit"]["one_run"]["confidence"] == 0.95
    assert Path(facts["release"]).parent.name == "audit"


@pytest.mark.parametrize(
    "words",
    [["attack=guess"], ["canaries=many"], ["compare=a.pt"], ["canaries=5"]],
)
def test_the_command_line_refuses(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["audit", *words]) == 2
    assert words[0].split("=")[0] in capsys.readouterr().err or words == ["canaries=5"]


def test_membership_of_the_same_model_twice(white_box: AuditedRun, scenes: Path):
    found = compare_membership(
        stock=white_box.training.weights, release=white_box.training.release, data=scenes
    )
    assert found.stock == found.private
    assert (found.private.members, found.private.others) == (IMAGES, 8)
    assert json.loads(json.dumps(found.to_json()))["private"]["auc"] == found.private.auc


def test_the_command_line_says_what_so_few_images_cannot_tell(
    white_box: AuditedRun, scenes: Path, capsys: pytest.CaptureFixture[str]
):
    weights, release = white_box.training.weights, white_box.training.release
    assert main(["audit", f"compare={weights}", f"release={release}", f"data={scenes}"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "8 images that were not trained on cannot resolve 1 % false alarms" in told


@pytest.mark.parametrize("wrong", ["compare", "release"])
def test_a_comparison_names_the_argument_that_is_wrong(
    white_box: AuditedRun, scenes: Path, wrong: str
):
    given = {"compare": white_box.training.weights, "release": white_box.training.weights}
    given[wrong] = scenes.parent / "absent.pt"
    with pytest.raises(ModelError) as raised:
        compare_membership(stock=given["compare"], release=given["release"], data=scenes)
    assert raised.value.where == f"{wrong}={given[wrong]}"
