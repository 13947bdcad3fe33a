"""Where teachers come from: what is refused, what is recorded, what a private one costs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import discreet.demo
from discreet.api import distill, train
from discreet.cli import main
from discreet.data import load_dataset
from discreet.errors import (
    CheckError,
    ConfigurationError,
    ModelError,
    ReleaseError,
    UnsafeArgumentError,
)
from discreet.ledger import BudgetLedger
from discreet.privacy import PrivacyUnit
from discreet.result import TrainingResult
from discreet.statement.verify import verify_release
from discreet.terminal import SilentReporter
from discreet.yolo import distillation, teacher
from discreet.yolo.checkpoint import file_digest
from discreet.yolo.distillation import TERMS

from .conftest import IMGSZ, counts

pytestmark = pytest.mark.usefixtures("unchecked")

WEIGHTS = Path(discreet.demo.__file__).with_name("demo-model.pt")
Arguments = Callable[..., dict[str, Any]]


def arguments(folder: Path, scenes: Path, **more: Any) -> dict[str, Any]:
    return {
        "data": str(scenes), "model": str(WEIGHTS), "epsilon": 8, "batch": 8, "steps": 2,
        "imgsz": IMGSZ, "val": False, "project": str(folder / "runs"), "sign": False, **more,
    }  # fmt: skip


@pytest.fixture
def given(scenes: Path, tmp_path: Path) -> Arguments:
    return lambda **more: arguments(tmp_path, scenes, **more)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """The release of a private run at ε = 4, beside its run and ledger."""
    folder = tmp_path_factory.mktemp("teacher")
    ledger = folder / "ledger.sqlite"
    return train(arguments(folder, scenes, epsilon=4, ledger=str(ledger))).release


@pytest.fixture
def ledger_of_teacher(released: Path, tmp_path: Path) -> str:
    """A copy of the ledger that the teacher was charged in."""
    return str(shutil.copy(released.parents[2] / "ledger.sqlite", tmp_path / "ledger.sqlite"))


def public(path: Path, **train_args: Any) -> Path:
    """A copy of the public weights whose checkpoint says what it was trained with."""
    checkpoint = torch.load(WEIGHTS, weights_only=False)
    checkpoint["train_args"] = train_args
    checkpoint["model"].args = train_args
    torch.save(checkpoint, path)
    return path


# ---- what training starts from ----


@pytest.mark.parametrize("argument", ["model", "pretrained"])
def test_no_run_starts_from_weights_of_its_own_images(
    given: Arguments, released: Path, scenes: Path, tmp_path: Path, argument: str
):
    there = {"model": "yolov8n.yaml"} if argument == "pretrained" else {}
    of_these = public(tmp_path / "stock.pt", data=str(scenes))
    for weights, why in ((of_these, "here is this data set"), (released / "weights.pt", "private")):
        with pytest.raises(UnsafeArgumentError, match=why) as error:
            train(given(**{**there, argument: str(weights)}))
        assert f"{argument}={weights}" in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_a_run_starts_from_weights_of_other_images(given: Arguments, tmp_path: Path):
    elsewhere = public(tmp_path / "coco.pt", data="/usr/src/datasets/coco.yaml")
    assert train(given(model=str(elsewhere))).claim_valid


# ---- refused ----


def test_a_teacher_without_provenance_is_refused(given: Arguments, capsys: Any):
    asked = given(teacher=str(WEIGHTS))
    with pytest.raises(UnsafeArgumentError, match="where the teacher comes from") as error:
        distill(asked)
    assert "teacher_data=public" in str(error.value) and str(WEIGHTS) in str(error.value)
    assert main(["distill", *(f"{key}={value}" for key, value in asked.items())]) == 2
    assert "teacher_data=public" in capsys.readouterr().err
    assert not Path(asked["project"]).exists()


@pytest.mark.slow
def test_a_teacher_of_these_very_images_is_refused(given: Arguments, tmp_path: Path, scenes: Path):
    described = yaml.safe_load(scenes.read_text()) | {"path": str(scenes.parent)}
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(described))
    copied = Path(shutil.copytree(scenes.parent, tmp_path / "a copy")) / scenes.name
    elsewhere = Path("/nowhere") / scenes.parent.name / scenes.name
    windows = f"C:\\work\\{scenes.parent.name}\\{scenes.name}"
    for data in (scenes, other, copied, elsewhere, windows, scenes.name, f"../{scenes.name}"):
        file = public(tmp_path / "teacher.pt", data=str(data))
        with pytest.raises(UnsafeArgumentError, match="this data set"):
            train(given(teacher=str(file), teacher_data="public"))
        with pytest.raises(UnsafeArgumentError, match="this data set"):
            train(given(model=str(file)))


def test_a_relative_name_is_not_taken_for_the_file_that_is_here(
    given: Arguments, tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / scenes.name).write_text("train: nothing\n")
    file = public(tmp_path / "teacher.pt", data=scenes.name)
    for folder in (tmp_path, scenes.parent):
        monkeypatch.chdir(folder)
        with pytest.raises(UnsafeArgumentError, match="without privacy on") as error:
            train(given(teacher=str(file), teacher_data="public"))
        assert f"rename {scenes}, so that" in str(error.value)


@pytest.mark.slow
def test_a_teacher_of_unknown_images_is_refused_where_these_were_exposed(
    given: Arguments, tmp_path: Path
):
    ledger = str(tmp_path / "ledger.sqlite")
    exposed = given(epsilon=None, noise_multiplier=0, ledger=ledger)
    silent = public(tmp_path / "silent.pt")
    asked = given(teacher=str(silent), teacher_data="public", ledger=ledger)
    assert train(asked).claim_valid
    train(exposed)
    with pytest.raises(UnsafeArgumentError, match="without privacy on these images"):
        train(asked)
    telling = public(tmp_path / "telling.pt", data="coco.yaml")
    assert train({**asked, "teacher": str(telling)}).claim_valid


def test_private_weights_without_their_statement_are_refused(
    given: Arguments, released: Path, tmp_path: Path
):
    file = shutil.copy(released / "weights.pt", tmp_path / "weights.pt")
    for more in ({}, {"teacher_data": "public"}):
        with pytest.raises(UnsafeArgumentError, match="statement is not beside them"):
            train(given(teacher=str(file), **more))


def test_a_release_is_not_vouched_for(given: Arguments, released: Path):
    with pytest.raises(ConfigurationError, match="claim of its own"):
        train(given(teacher=str(released), teacher_data="public"))
    with pytest.raises(ConfigurationError) as error:
        train(given(teacher=str(released.parent)))
    assert f"teacher={released}" in str(error.value)


def test_a_folder_that_is_no_release_is_told_what_a_teacher_may_be(
    given: Arguments, tmp_path: Path
):
    for more in ({}, {"teacher_data": "public"}):
        with pytest.raises(ConfigurationError, match="not a release") as error:
            train(given(teacher=str(tmp_path), **more))
        assert "a local file of weights (.pt), or the release folder" in str(error.value.do)


def test_a_spoilt_release_is_refused(given: Arguments, released: Path, tmp_path: Path):
    spoilt = Path(shutil.copytree(released, tmp_path / "release"))
    page = spoilt / "privacy.json"
    page.write_text(page.read_text().replace('"epsilon": 3.99', '"epsilon": 0.99', 1))
    with pytest.raises(ReleaseError, match="not what its statement says"):
        train(given(teacher=str(spoilt), epsilon=8))


def test_a_release_without_a_guarantee_is_refused(given: Arguments):
    exposed = train(given(epsilon=None, noise_multiplier=0))
    with pytest.raises(UnsafeArgumentError, match="no noise was added"):
        train(given(teacher=str(exposed.release)))


@pytest.mark.parametrize("argument", ["teacher", "pretrained"])
def test_files_that_hold_no_model_are_named_as_they_were_given(
    given: Arguments, tmp_path: Path, argument: str
):
    junk, cut, empty = tmp_path / "junk.pt", tmp_path / "cut.pt", tmp_path / "empty.pt"
    junk.write_text("no weights")
    cut.write_bytes(WEIGHTS.read_bytes()[:1000])
    torch.save({"model": torch.nn.Linear(1, 1)}, empty)
    more = {"teacher_data": "public"} if argument == "teacher" else {}
    for file in (junk, cut, empty, tmp_path / "nothere.pt"):
        with pytest.raises(ModelError) as error:
            train(given(**{argument: str(file)}, **more))
        assert str(error.value.where).startswith(f"{argument}=")
    assert not (tmp_path / "runs").exists()


def test_a_teacher_that_has_diverged_is_named(given: Arguments, tmp_path: Path):
    checkpoint = torch.load(WEIGHTS, weights_only=False)
    next(checkpoint["model"].parameters()).data[:] = torch.nan
    torch.save(checkpoint, file := tmp_path / "nan.pt")
    with pytest.raises(ModelError, match="not finite numbers") as error:
        train(given(teacher=str(file), teacher_data="public"))
    assert error.value.where == f"teacher={file}"


def test_foreign_code_in_a_teacher_is_not_run(given: Arguments, tmp_path: Path):
    file = tmp_path / "teacher.pt"
    torch.save({"model": Bomb(tmp_path / "boom")}, file)
    with pytest.raises(ModelError):
        train(given(teacher=str(file), teacher_data="public"))
    assert not (tmp_path / "boom").exists()


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["teacher_data", "teacher_gain"])
def test_arguments_of_a_teacher_need_one(given: Arguments, name: str):
    value = {"teacher_data": "public", "teacher_gain": 2}[name]
    with pytest.raises(ConfigurationError, match="there is no teacher"):
        train(given(**{name: value}))
    with pytest.raises(ConfigurationError, match="teacher"):
        distill(given())


# ---- public ----


@pytest.mark.slow
@pytest.mark.checked
def test_a_public_teacher_guides_and_is_told(given: Arguments, scenes: Path):
    result = train(given(teacher=str(WEIGHTS), teacher_data="public", teacher_gain=2))
    told = result.record.teacher
    assert told is not None and told.claim is None
    assert (told.access, told.guides, told.gain, told.terms) == ("public", "loss", 2.0, TERMS)
    assert told.sha256 == file_digest(WEIGHTS)
    assert verify_release(result.release).valid
    plain = train(given())
    assert plain.record.teacher is None
    assert plain.record.mechanism.noise_multiplier == result.record.mechanism.noise_multiplier
    for page in ("PRIVACY.md", "PRIVACY.zh-CN.md", "report.html"):
        assert told.sha256 in (result.release / page).read_text()
        assert "eacher" not in (plain.release / page).read_text()
    journal = (result.internal / "steps.csv").read_text().splitlines()
    columns, first = (line.split(",") for line in journal[:2])
    assert sum(float(first[columns.index(term)]) for term in TERMS) > 0


def test_a_run_goes_on_with_the_same_teacher_only(given: Arguments, tmp_path: Path):
    file = public(tmp_path / "teacher.pt", data="coco.yaml")

    class Stop(SilentReporter):
        def step(self, done: int, epsilon: float | None = None) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(given(teacher=str(file), teacher_data="public"), reporter=Stop())
    run = str(tmp_path / "runs" / "train")
    kept = file.read_bytes()
    public(file, data="coco8.yaml")
    with pytest.raises(ConfigurationError, match="not as when the run began"):
        train({"resume": run})
    file.write_bytes(kept)
    result = train({"resume": run})
    assert counts(result) == (2, 2, 2)
    assert result.record.teacher is not None


@pytest.mark.checked
def test_a_teacher_that_mixes_images_is_found_by_the_check(
    given: Arguments, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(distillation, "freeze", lambda model: model.train())
    with pytest.raises(CheckError, match="teacher's"):
        train(given(teacher=str(WEIGHTS), teacher_data="public"))


# ---- private ----


@pytest.mark.slow
def test_what_a_private_teacher_spent_is_part_of_the_claim(
    given: Arguments, released: Path, ledger_of_teacher: str
):
    alone = train(given(ledger=ledger_of_teacher))
    result = train(given(teacher=str(released), ledger=ledger_of_teacher))
    record = result.record
    assert 7.9 < result.spent.epsilon <= 8
    # The same ε for both together needs more noise than for this run alone.
    assert record.mechanism.noise_multiplier > 1.05 * alone.record.mechanism.noise_multiplier
    assert record.teacher is not None and record.teacher.claim is not None
    theirs = json.loads((released / "privacy.json").read_text())
    assert record.teacher.sha256 == theirs["weights"]["sha256"]
    assert record.teacher.claim.claim.epsilon == theirs["claim"]["epsilon"]
    assert list(record.teacher.claim.events) == theirs["events"]
    # Three runs are in the ledger, the teacher's among them: it is counted once.
    assert record.spent.runs == 3
    found = verify_release(result.release)
    assert found.valid, found.faults
    assert "ε = 4.00" in (result.release / "PRIVACY.md").read_text()


@pytest.mark.slow
def test_a_teacher_that_the_ledger_does_not_know_is_counted_all_the_same(
    given: Arguments, released: Path, ledger_of_teacher: str, tmp_path: Path
):
    known = train(given(teacher=str(released), ledger=ledger_of_teacher))
    strange = train(given(teacher=str(released), ledger=str(tmp_path / "new.sqlite")))
    assert known.record.spent.total == pytest.approx(strange.record.spent.total)
    assert strange.record.spent.runs == 2
    moved = Path(shutil.copytree(released, tmp_path / "moved"))
    again = train(given(teacher=str(moved), ledger=str(tmp_path / "other.sqlite")))
    assert again.record.spent.total == pytest.approx(strange.record.spent.total)
    assert verify_release(again.release).valid


def test_a_teacher_that_spent_all_leaves_nothing(given: Arguments, released: Path):
    with pytest.raises(ConfigurationError, match=r"the teacher alone has spent ε = 4\.00"):
        train(given(teacher=str(released), epsilon=3.9))


def test_leaving_the_teachers_spending_out_does_not_verify(
    given: Arguments, released: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(teacher.Teacher, "events", ())
    from discreet.statement import record

    monkeypatch.setattr(record, "spent_by", lambda _: ())
    result: TrainingResult = train(given(teacher=str(released)))
    monkeypatch.undo()
    found = verify_release(result.release)
    assert any("claim.epsilon" in fault for fault in found.faults)


def test_runs_on_images_are_found_whatever_the_set(given: Arguments, scenes: Path, tmp_path: Path):
    ledger = str(tmp_path / "ledger.sqlite")
    train(given(ledger=ledger))
    book = BudgetLedger.open(ledger)
    dataset = load_dataset(scenes)
    assert len(book.runs_on([dataset.train[3].digest])) == 1
    assert not book.runs_on([record.digest for record in dataset.val])


def test_claims_of_other_units_are_not_composed(released: Path, scenes: Path):
    opened = teacher.open_teacher(released, vouched=False, dataset=load_dataset(scenes))
    opened.require_unit(PrivacyUnit.IMAGE)
    with pytest.raises(UnsafeArgumentError, match="cannot be composed"):
        opened.require_unit(PrivacyUnit.GROUP)
