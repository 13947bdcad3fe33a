"""Whole runs by recipe, and by every kind of clipping: checked, verified, resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import discreet.demo
from discreet.api import train
from discreet.errors import CheckError, ConfigurationError
from discreet.planning.cost import StepTime
from discreet.recipes import rules
from discreet.statement.verify import verify_release
from discreet.terminal import SilentReporter
from discreet.yolo import preparation
from discreet.yolo.preparation import prepare

from .conftest import ARCHITECTURE, IMGSZ, counts

pytestmark = pytest.mark.usefixtures("unchecked")

WEIGHTS = str(Path(discreet.demo.__file__).with_name("demo-model.pt"))


def given(scenes: Path, tmp_path: Path, **arguments: Any) -> dict[str, Any]:
    return {
        "data": str(scenes), "model": ARCHITECTURE, "epsilon": 8, "batch": 8, "steps": 3,
        "imgsz": IMGSZ, "val": False, "project": str(tmp_path / "runs"), **arguments,
    }  # fmt: skip


class Listener(SilentReporter):
    def __init__(self, stop_at: int = 0) -> None:
        self.rows: dict[str, str] = {}
        self.stop_at = stop_at

    def plan(self, rows: Any, warnings: Any = ()) -> None:
        self.rows = dict(rows)

    def step(self, done: int, epsilon: float | None = None) -> None:
        if done == self.stop_at:
            raise KeyboardInterrupt


def test_a_run_fits_into_the_hours_that_are_given_and_keeps_its_plan(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = given(scenes, tmp_path, model=WEIGHTS, batch=None, hours=1)

    def measured(seconds: float) -> None:
        step = StepTime(
            model="m", imgsz=IMGSZ, device="CPU", seconds_per_image=seconds, seconds_per_step=0,
            parameters=1,
        )  # fmt: skip
        monkeypatch.setattr(preparation, "measure_step", lambda *_, **__: step)

    measured(3600 / 12)
    with pytest.raises(KeyboardInterrupt):
        train(asked, reporter=Listener(stop_at=1))
    measured(3600 / 30)
    record = train({"resume": str(tmp_path / "runs" / "train")}).record
    assert record.sampling.sample_rate == 4 / 24


def test_a_step_is_measured_as_it_will_be(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By what trains, as it is enlarged, and with the most images that a group may have in it."""
    heard: list[Any] = []

    def measure(*what: Any, **_: Any) -> StepTime:
        heard.append(what)
        return StepTime(
            model="m", imgsz=IMGSZ, device="CPU", seconds_per_image=1.0, seconds_per_step=0,
            parameters=1,
        )  # fmt: skip

    monkeypatch.setattr(preparation, "measure_step", measure)
    asked = given(scenes, tmp_path, model=WEIGHTS, batch=None, hours=0.01, zoom=2)
    grouped = {**asked, "group_regex": "(.*)", "max_images_per_unit": 2}
    batches = [
        prepare(given, reporter=SilentReporter()).plan.mechanism.expected_batch_size
        for given in (asked, grouped)
    ]
    assert heard == 2 * [(WEIGHTS, IMGSZ, "class_film+classes", 2)]
    assert batches == [12, 6]  # of 36 seconds, 3 steps


@pytest.mark.checked
def test_from_public_weights_the_recipe_is_taken_told_and_recorded(scenes: Path, tmp_path: Path):
    heard = Listener()
    result = train(given(scenes, tmp_path, model=WEIGHTS), reporter=heard)
    record = result.record
    assert verify_release(result.release).valid
    assert record.mechanism.clipping == "automatic"
    assert record.mechanism.sensitivity == record.mechanism.max_grad_norm == 1.0
    assert record.training.trainable == "class_film+classes"
    told = {name: record.configuration[name] for name in ("recipe", "box", "lr0", "balance")}
    assert told == {"recipe": "auto", "box": 2.0, "lr0": 0.03, "balance": 0.5}
    assert heard.rows["trainable"].startswith("class_film+classes: the last class")
    assert "steps" in heard.rows and "given" not in heard.rows["steps"]
    assert "normalised to norm 1" in (result.release / "PRIVACY.md").read_text()
    # Whatever trains is in the weights: nothing else moved.
    before = torch.load(WEIGHTS, weights_only=False)["model"].float().state_dict()
    after = torch.load(result.weights, weights_only=False)["model"].float().state_dict()
    backbone = [n for n in before if n.startswith("model.0.") and before[n].is_floating_point()]
    assert backbone and all(torch.equal(before[n], after[n]) for n in backbone)


def test_arguments_win_over_the_recipe(scenes: Path, tmp_path: Path):
    changes = {"trainable": "film+head", "clipping": "flat", "box": 7.5, "optimizer": "SGD"}
    result = train(given(scenes, tmp_path, model=WEIGHTS, **changes))
    record = result.record
    assert (record.mechanism.clipping, record.training.trainable) == ("flat", "film+head")
    assert (record.configuration["box"], record.configuration["optimizer"]) == (7.5, "SGD")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["per_layer", "per_block", "adaptive"])
@pytest.mark.checked
def test_every_kind_passes_the_check_and_verifies(scenes: Path, tmp_path: Path, kind: str):
    result = train(given(scenes, tmp_path, clipping=kind))
    assert result.record.mechanism.clipping == kind
    found = verify_release(result.release)
    assert found.valid, found.faults
    assert result.spent.epsilon <= 8
    kinds = {event["kind"] for event in result.record.events}
    adaptive = {"adaptively_clipped_gaussian"}
    assert kinds == (adaptive if kind == "adaptive" else {"poisson_sampled_gaussian"})


def test_another_kind_of_clipping_in_the_record_does_not_verify(scenes: Path, tmp_path: Path):
    result = train(given(scenes, tmp_path, clipping="adaptive", sign=False))
    path = result.release / "privacy.json"
    path.write_text(path.read_text().replace('"clipping": "adaptive"', '"clipping": "flat"'))
    assert not verify_release(result.release).valid


def test_an_adaptive_bound_goes_on_where_it_was(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from discreet.yolo import train as training

    asked: list[float] = []
    original = training.PrivateDetectionTrainer.make_clipping

    def make(self: Any, bound: float) -> Any:
        asked.append(bound)
        return original(self, bound)

    with pytest.raises(KeyboardInterrupt):
        train(given(scenes, tmp_path, clipping="adaptive"), reporter=Listener(stop_at=2))
    folder = tmp_path / "runs" / "train"
    kept = torch.load(folder / "internal" / "checkpoint.pt", weights_only=True)["max_grad_norm"]
    assert kept != 1.0
    monkeypatch.setattr(training.PrivateDetectionTrainer, "make_clipping", make)
    assert counts(train({"resume": str(folder)})) == (3, 3, 3)
    assert kept in asked


def test_adaptive_clipping_with_other_sampling_is_refused(scenes: Path, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="Poisson"):
        train(given(scenes, tmp_path, clipping="adaptive", sampling="shuffle"))


@pytest.mark.checked
def test_a_count_with_less_noise_than_is_charged_is_found(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from discreet.yolo import train as training

    original = training.PrivateDetectionTrainer.make_clipping

    def quieter(self: Any, bound: float) -> Any:
        made = original(self, bound)
        made.count_noise_multiplier /= 2
        return made

    monkeypatch.setattr(training.PrivateDetectionTrainer, "make_clipping", quieter)
    with pytest.raises(CheckError, match="charged as another step"):
        train(given(scenes, tmp_path, clipping="adaptive"))


def test_a_run_goes_on_by_the_rules_that_it_began_with(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other rules in a newer version would train other parts, and tell of a mixture as one run."""
    monkeypatch.setattr(rules, "_PLENTY", 10**9)
    with pytest.raises(KeyboardInterrupt):
        train(given(scenes, tmp_path, model=WEIGHTS), reporter=Listener(stop_at=1))
    monkeypatch.setattr(rules, "_PLENTY", 1)
    result = train({"resume": str(tmp_path / "runs" / "train")}, reporter=SilentReporter())
    assert result.record.training.trainable == "class_film+classes"
    assert result.record.configuration["hsv_s"] == 0.0
    assert result.record.configuration["lr0"] == 0.03


@pytest.mark.slow
@pytest.mark.checked
def test_views_of_the_recipe_are_one_unit_of_the_step(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four views of an image that the recipe asks for, not the user, are clipped as one."""
    monkeypatch.setattr(rules, "_PLENTY", 1)
    heard = Listener()
    result = train(given(scenes, tmp_path, model=WEIGHTS, batch=24), reporter=heard)
    assert heard.rows["views"].startswith("4: ")
    assert (result.record.configuration["views"], result.record.configuration["scale"]) == (4, 0.5)
    assert verify_release(result.release).valid
    lines = (result.internal / "steps.csv").read_text(encoding="utf-8").splitlines()
    drawn = lines[0].split(",").index("drawn")
    assert {line.split(",")[drawn] for line in lines[1:]} == {"24"}
