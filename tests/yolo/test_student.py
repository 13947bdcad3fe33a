"""Students of public images that a private teacher labelled: its claim, unchanged."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from ultralytics import YOLO

from discreet import PrivateYOLO
from discreet.accounting import PoissonSampledGaussian, make_accountant
from discreet.api import distill
from discreet.cli import main
from discreet.data import load_dataset
from discreet.demo.dataset import write_dataset
from discreet.demo.scenes import PUBLIC
from discreet.errors import ConfigurationError, ModelError, UnsafeArgumentError
from discreet.ledger import BudgetLedger
from discreet.result import TrainingResult
from discreet.statement import schema
from discreet.statement.scan import PrivateWords
from discreet.statement.sealing import seal
from discreet.statement.verify import verify_release
from discreet.terminal import RichReporter, format_epsilon
from discreet.yolo import student
from discreet.yolo._compat import load_weights
from discreet.yolo.labelling import label_images
from discreet.yolo.model import open_source
from discreet.yolo.stock import StockRun
from discreet.yolo.teacher import Teacher, open_teacher

from .conftest import IMGSZ
from .test_teacher import WEIGHTS, public, released

__all__ = ["released"]


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Public images; the training images have no labels."""
    folder = tmp_path_factory.mktemp("public")
    data = write_dataset(folder, style=PUBLIC, train=12, val=6, size=IMGSZ, seed=9)
    for label in (folder / "labels" / "train").iterdir():
        label.unlink()
    return data


@pytest.fixture(scope="module")
def told() -> io.StringIO:
    """What is said while `taught` is made."""
    return io.StringIO()


@pytest.fixture(scope="module")
def taught(
    released: Path, streets: Path, tmp_path_factory: pytest.TempPathFactory, told: io.StringIO
) -> TrainingResult:
    folder = tmp_path_factory.mktemp("student")
    return PrivateYOLO(WEIGHTS).distill(
        released,
        reporter=RichReporter(told),
        public_data=streets,
        epochs=1,
        conf=0.05,
        project=folder / "runs",
        ledger=str(folder / "ledger.sqlite"),
        sign=False,
    )


def test_the_students_claim_is_the_teachers(taught: TrainingResult, released: Path):
    theirs = json.loads((released / "privacy.json").read_text())
    mine = json.loads((taught.release / "privacy.json").read_text())
    for part in ("claim", "unit", "events", "figures", "mechanism", "sampling", "steps", "spent"):
        assert mine[part] == theirs[part], part
    teacher = mine["teacher"]
    assert (teacher["guides"], teacher["public_images"]) == ("labels", 12)
    assert teacher["sha256"] == theirs["weights"]["sha256"] != mine["weights"]["sha256"]
    assert teacher["claim"]["events"] == theirs["events"]
    assert mine["metrics"] is not None and mine["data"]["validation"]["access"] == "public"
    found = verify_release(taught.release)
    assert found.valid, found.faults
    assert "never saw a private image" in (taught.release / "PRIVACY.md").read_text()
    assert "从未接触过任何私有图像" in (taught.release / "PRIVACY.zh-CN.md").read_text()
    report = (taught.release / "report.html").read_text()
    assert "never saw a private image" in report and "从未接触过任何私有图像" in report


def test_what_the_teacher_spent_is_told_as_the_teachers(taught: TrainingResult, told: io.StringIO):
    spent = f"spent ε = {format_epsilon(taught.spent.epsilon)}"
    assert f"nothing was spent here; the teacher, whose claim this is, {spent}" in told.getvalue()
    assert "this training spent" not in told.getvalue()


def test_the_student_opens_in_stock_ultralytics(taught: TrainingResult):
    model = YOLO(str(taught.weights))
    assert model.names == {0: "red cell", 1: "white cell", 2: "platelet"}
    model.predict(np.zeros((IMGSZ, IMGSZ, 3), np.uint8), imgsz=IMGSZ, verbose=False)


@pytest.mark.parametrize(
    "change",
    [
        {"claim": None},
        {"access": "public", "claim": None},
        {"public_images": None},
        {"guides": "loss"},
        {"terms": ["teacher's boxes"], "gain": 1.0},
    ],
)
def test_a_teacher_is_told_in_one_way(taught: TrainingResult, change: dict[str, Any]):
    told = taught.record.teacher
    assert told is not None
    facts = json.loads(told.model_dump_json())
    schema.Teacher.model_validate_json(json.dumps(facts))
    with pytest.raises(ValidationError):
        schema.Teacher.model_validate_json(json.dumps({**facts, **change}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: {"teacher": _claim(r, epsilon=1.0)}, r"teacher\.claim\.epsilon: states 1"),
        (lambda r: {"teacher": _claim(r, delta=2e-5)}, "claim: it is not the teacher's"),
        (lambda _: {"teacher": None, "events": ()}, "steps.charged"),
        (lambda r: {"events": r.events * 2}, "events: they are not those of the teacher"),
    ],
)
def test_a_changed_claim_does_not_verify(
    taught: TrainingResult, tmp_path: Path, change: Callable[..., Any], said: str
):
    folder = Path(shutil.copytree(taught.release, tmp_path / "release"))
    record = taught.record.model_copy(update=change(taught.record))
    seal(folder, record=record, key=None, words=PrivateWords())
    faults = verify_release(folder).faults
    assert any(re.search(said, fault) for fault in faults), faults


def _claim(record: schema.PrivacyRecord, **changes: Any) -> schema.Teacher:
    teacher = record.teacher
    assert teacher is not None and teacher.claim is not None
    claim = teacher.claim.claim.model_copy(update=changes)
    return teacher.model_copy(update={"claim": teacher.claim.model_copy(update={"claim": claim})})


def test_labels_are_what_the_teacher_finds(scenes: Path, tmp_path: Path):
    model = load_weights(WEIGHTS).eval()
    records = load_dataset(scenes).val
    labelled = label_images(
        model, records, imgsz=IMGSZ, conf=0.25, iou=0.7, max_det=300,
        folder=tmp_path / "labels", progress=lambda *_: None,
    )  # fmt: skip
    stock = YOLO(str(WEIGHTS))
    for record, mine in zip(records, labelled, strict=True):
        found = stock.predict(record.image, imgsz=IMGSZ, conf=0.25, verbose=False)[0].boxes
        assert mine.classes.tolist() == found.cls.int().tolist()
        assert np.allclose(mine.boxes, found.xywhn.numpy(), atol=2e-3)
        lines = mine.label.read_text().splitlines()  # pyright: ignore[reportOptionalMemberAccess]
        assert len(lines) == len(mine.classes)
    assert any(len(mine.classes) for mine in labelled)


def asked(released: Path, images: Path, folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "teacher": str(released), "model": str(WEIGHTS), "public_data": str(images), "epochs": 1,
        "project": str(folder / "runs"), "ledger": str(folder / "ledger.sqlite"), "sign": False,
        **more,
    }  # fmt: skip


def test_private_images_are_not_passed_off_as_public(released: Path, scenes: Path, tmp_path: Path):
    ledger = released.parents[2] / "ledger.sqlite"
    with pytest.raises(UnsafeArgumentError, match="on record as private"):
        distill(asked(released, scenes, tmp_path, ledger=str(ledger)))
    assert not (tmp_path / "runs").exists()


def test_the_teachers_own_images_are_known_by_its_run(
    released: Path, scenes: Path, streets: Path, tmp_path: Path
):
    """Another ledger than the teacher's, then one that is not to be found any more."""
    run = Path(shutil.copytree(released.parent, tmp_path / "teacher"))
    there = run / "internal" / "run.json"
    copied = Path(shutil.copytree(scenes.parent, tmp_path / "copied")) / scenes.name
    for images in (scenes, copied):
        with pytest.raises(UnsafeArgumentError, match="teacher was trained on images of it"):
            distill(asked(run / "release", images, tmp_path))
    content = json.loads(there.read_text())
    only = tmp_path / "only.yaml"
    described = yaml.safe_load(streets.read_text())
    described |= {"path": str(streets.parent), "val": str(copied.parent / "images" / "train")}
    only.write_text(yaml.safe_dump(described))
    content["given"]["ledger"] = str(tmp_path / "gone" / "ledger.sqlite")
    there.write_text(json.dumps(content))
    for images in (scenes, copied, only):
        with pytest.raises(UnsafeArgumentError, match="teacher was trained on images of it"):
            distill(asked(run / "release", images, tmp_path))
    assert not (tmp_path / "runs").exists() and not (tmp_path / "gone").exists()


def test_the_images_of_a_teachers_teacher_are_private_too(
    released: Path, scenes: Path, tmp_path: Path
):
    """Its run is on images that no ledger here knows; its teacher's on these."""
    first = Path(shutil.copytree(released.parent, tmp_path / "first"))
    second = Path(shutil.copytree(released.parent, tmp_path / "second"))
    there = second / "internal" / "run.json"
    content = json.loads(there.read_text())
    gone = str(tmp_path / "gone" / "data.yaml")
    content |= {"run_id": "second"}
    content["given"] |= {"teacher": str(first / "release"), "data": gone, "ledger": gone}
    there.write_text(json.dumps(content))
    with pytest.raises(UnsafeArgumentError, match="teacher was trained on images of it"):
        distill(asked(second / "release", scenes, tmp_path))
    content["given"] |= {"teacher": str(second / "release")}  # no end, where there is none
    there.write_text(json.dumps(content))
    assert len(open_teacher(second / "release", vouched=False, dataset=None).runs_behind()) == 1


def test_public_images_of_other_runs_in_the_teachers_ledger_are_no_secret(
    released: Path, streets: Path, tmp_path: Path
):
    run = Path(shutil.copytree(released.parent, tmp_path / "teacher"))
    ledger = shutil.copy(released.parents[2] / "ledger.sqlite", tmp_path / "theirs.sqlite")
    there = run / "internal" / "run.json"
    content = json.loads(there.read_text())
    content["given"]["ledger"] = str(ledger)
    there.write_text(json.dumps(content))
    dataset = load_dataset(streets, labels_wanted=False)
    book = BudgetLedger.open(str(ledger))
    seen = PoissonSampledGaussian(sample_rate=1.0, noise_multiplier=9.0, steps=1)
    other = book.reserve(
        run_id="other", name="streets", digests=[record.digest for record in dataset.train],
        units=dataset.units().of_images, planned=[seen], accountant=make_accountant("pld"),
        delta=1e-3, private=True, label="another run",
    )  # fmt: skip
    other.charge(seen)
    other.settle()
    book.close()
    with pytest.raises(UnsafeArgumentError, match="on record as private") as error:
        distill(asked(run / "release", streets, tmp_path, ledger=str(ledger)))
    assert "a ledger of their own" in str(error.value.do)
    with pytest.raises(ConfigurationError, match="finds nothing"):  # so the advice helps
        distill(asked(run / "release", streets, tmp_path, conf=0.999))


@pytest.mark.parametrize("name", ["weights.pt", "weights.PT"])
def test_a_student_starts_from_public_weights(
    released: Path, streets: Path, scenes: Path, tmp_path: Path, name: str
):
    private = shutil.copy(released / "weights.pt", tmp_path / name)
    with pytest.raises(UnsafeArgumentError, match="not public"):
        distill(asked(released, streets, tmp_path, model=str(private)))
    stock = public(tmp_path / f"of these {name}", data=str(scenes))
    with pytest.raises(UnsafeArgumentError, match="this data set"):
        distill(asked(released, streets, tmp_path, model=str(stock)))
    assert not (tmp_path / "runs").exists()


def test_a_public_teacher_has_no_claim_to_carry(streets: Path, tmp_path: Path):
    with pytest.raises(UnsafeArgumentError, match="where the teacher comes from") as error:
        distill(asked(WEIGHTS, streets, tmp_path))
    # teacher_data=public has no place here.
    assert str(error.value.do).startswith("give the release folder of a private run; or give data=")
    with pytest.raises(ConfigurationError, match="needs no word") as error:
        distill(asked(WEIGHTS, streets, tmp_path, teacher_data="public"))
    assert "or give data= in place of public_data" in str(error.value.do)


def test_only_a_release_labels(streets: Path, tmp_path: Path):
    for place in (tmp_path / "nothere", tmp_path):
        with pytest.raises((ModelError, ConfigurationError)) as error:
            distill(asked(place, streets, tmp_path))
        assert error.value.where == f"teacher={place}"
        assert error.value.do == "give the release folder of a private run"


@pytest.mark.parametrize("name", ["yolov8n-seg.yaml", "rtdetr-l.yaml"])
def test_a_teacher_that_draws_other_labels_is_refused(
    released: Path, streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    def opened(place: Path, **how: Any) -> Teacher:
        return dataclasses.replace(open_teacher(place, **how), model=open_source(name))

    monkeypatch.setattr(student, "open_teacher", opened)
    with pytest.raises(ModelError, match="labels for another") as error:
        distill(asked(released, streets, tmp_path))
    assert error.value.where == f"teacher={released}"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["yolov8n-seg.yaml", "yolov8n-pose.yaml", "yolov8n-cls.yaml"])
def test_a_student_that_learns_other_labels_is_refused(
    released: Path, streets: Path, tmp_path: Path, name: str
):
    with pytest.raises(ModelError, match="labels for another") as error:
        distill(asked(released, streets, tmp_path, model=name))
    assert error.value.where == f"model={name}"
    assert not (tmp_path / "runs").exists()


def test_a_student_that_diverged_is_not_released(
    released: Path, streets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def diverged(*_: Any, folder: Path, **__: Any) -> StockRun:
        broken = torch.load(WEIGHTS, weights_only=False)
        next(broken["model"].parameters()).data[0] = float("nan")
        torch.save(broken, folder.parent / "last.pt")
        return StockRun(weights=folder.parent / "last.pt", seconds=1.0)

    monkeypatch.setattr(student, "train_stock", diverged)
    with pytest.raises(ModelError, match="has diverged"):
        distill(asked(released, streets, tmp_path, conf=0.05))
    assert not list(tmp_path.rglob("release"))


def test_a_teacher_that_finds_nothing_teaches_nothing(
    released: Path, streets: Path, tmp_path: Path
):
    with pytest.raises(ConfigurationError, match="finds nothing"):
        distill(asked(released, streets, tmp_path, conf=0.999))
    assert not list((tmp_path / "runs").iterdir())


def test_arguments_of_private_training_are_told_apart(
    released: Path, streets: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(student, "train_student", None)
    words = asked(released, streets, tmp_path, epsilon=8, data=str(streets), epoch=3)
    assert main(["distill", *(f"{key}={value}" for key, value in words.items())]) == 2
    said = capsys.readouterr().err
    assert "nothing is spent here" in said
    assert "sees no private ones" in said
    assert "discreet train takes a teacher and both" in said
    assert "did you mean epochs" in said
