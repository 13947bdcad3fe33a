"""A comparison's twin follows the recipe of its private runs; interrupted, nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from discreet.comparing import Contestant, Measured
from discreet.errors import BudgetError, ConfigurationError, TeamError, UnsafeArgumentError
from discreet.recipes import rules
from discreet.terminal import SilentReporter
from discreet.yolo import comparing, contestants, inputs

from .test_recipe_runs import WEIGHTS


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be trained, in order."""
    made: list[Any] = []

    def measure(job: Any) -> None:
        made.append(job)
        leave_row(job)

    monkeypatch.setattr(comparing, "in_a_process", measure)
    return made


def leave_row(job: Any) -> None:
    row = Measured(
        kind=job.contestant.kind, name=job.contestant.name, map50=0.5, map50_95=0.3,
        seconds_per_epoch=1.0, epochs=1.0, peak_mib=100.0,
    )  # fmt: skip
    job.folder.mkdir()
    job.row.write_text(json.dumps(asdict(row)))


def begin(
    scenes: Path, tmp_path: Path, *epsilons: float, resume: Path | None = None, **more: Any
) -> Path:
    asked = {
        "data": str(scenes), "model": WEIGHTS, "imgsz": 64, "val_data": "public", "delta": 0.01,
        "project": str(tmp_path), "lr0": 0.07, **more,
    }  # fmt: skip
    silent = SilentReporter()
    return comparing.compare_runs(
        asked, epsilons=epsilons, stock_epochs=1, resume=resume, reporter=silent
    )[1]


def test_hours_of_each_contestant_would_not_compare(scenes: Path, tmp_path: Path, jobs: list[Any]):
    with pytest.raises(ConfigurationError, match="different numbers of images"):
        begin(scenes, tmp_path, 8.0, hours=1)
    assert not jobs and not list(tmp_path.iterdir())


# Of 24 images, so many make features learn: between the two ε, or above both and below the usual 8.
@pytest.mark.parametrize(
    ("plenty", "trainable"), [(10, "film+classes"), (100, "class_film+classes")]
)
def test_the_twin_takes_the_recipe_of_the_largest_epsilon(
    scenes: Path,
    tmp_path: Path,
    jobs: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    plenty: int,
    trainable: str,
) -> None:
    monkeypatch.setattr(rules, "_PLENTY", plenty)
    begin(scenes, tmp_path, 0.8, 0.2, 0.8)
    stock, twin, *private = (job.arguments for job in jobs)
    assert [given["epsilon"] for given in private] == [0.8, 0.2]
    assert all("trainable" not in given and given["lr0"] == 0.07 for given in private)
    assert "noise_multiplier" not in stock
    assert (twin["noise_multiplier"], twin["clipping"], twin["lr0"]) == (0, "flat", 0.07)
    assert twin["trainable"] == trainable


def test_data_and_model_are_read_once_for_all_epsilons(
    scenes: Path, tmp_path: Path, jobs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[Any]()
    own = inputs.read_dataset

    def reading(*args: Any, **kwargs: Any) -> Any:
        read.append(args)
        return own(*args, **kwargs)

    monkeypatch.setattr(inputs, "read_dataset", reading)
    begin(scenes, tmp_path, 0.2, 0.4, 0.8)
    assert len(jobs) == 5
    assert len(read) == 1


def test_an_epsilon_that_cannot_be_is_found_before_stock_training(
    scenes: Path, tmp_path: Path, jobs: list[Any]
) -> None:
    with pytest.raises(ConfigurationError, match="epsilon"):
        begin(scenes, tmp_path, 8.0, -1.0)
    assert not jobs


def test_a_comparison_goes_on_with_the_twin_that_it_has(
    scenes: Path, tmp_path: Path, jobs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "_PLENTY", 10)
    folder = begin(scenes, tmp_path, 0.2)
    begin(scenes, tmp_path, 0.2, 0.3, resume=folder)  # of the same recipe
    assert [job.contestant.kind for job in jobs] == ["stock", "twin", "private", "private"]
    with pytest.raises(ConfigurationError, match="other arguments"):
        begin(scenes, tmp_path, 0.8, resume=folder)


def test_a_row_of_nearly_the_same_epsilon_is_not_taken_for_it(
    scenes: Path, tmp_path: Path, jobs: list[Any]
) -> None:
    folder = begin(scenes, tmp_path, 8.0)
    begin(scenes, tmp_path, 8.0000001, 8.0, resume=folder)
    assert [job.contestant.epsilon for job in jobs] == [None, None, 8.0, 8.0000001]
    assert len({job.folder for job in jobs}) == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            "images/train/scene_00003.jpg",
            "the training images, labels, groups or class names are not as",
        ),
        (
            "labels/train/scene_00003.txt",
            "the training images, labels, groups or class names are not as",
        ),
        ("images/val/scene_00002.jpg", "the validation images, labels or class names are not as"),
        ("model.pt", "the weights that the comparison started from, or other public files, are"),
        ("cfg.yaml", "other arguments"),
    ],
)
def test_rows_of_other_data_or_weights_do_not_come_under_one_table(
    scenes: Path, tmp_path: Path, jobs: list[Any], changed: str, message: str
) -> None:
    data = Path(shutil.copytree(scenes.parent, tmp_path / "data"))
    shutil.copy(WEIGHTS, data / "model.pt")
    (data / "cfg.yaml").write_text("seed: 1\n")
    more = {"model": str(data / "model.pt"), "cfg": str(data / "cfg.yaml")}
    folder = begin(data / "data.yaml", tmp_path, 8.0, **more)
    place = data / changed
    match place.suffix:
        case ".jpg":
            place.unlink()
            (data / changed.replace("images", "labels")).with_suffix(".txt").unlink()
        case ".pt":
            torch.save({**torch.load(place, weights_only=False), "date": "another"}, place)
        case _:
            place.write_text("seed: 2\n" if place.suffix == ".yaml" else "")
    with pytest.raises(ConfigurationError, match=message):
        begin(data / "data.yaml", tmp_path, 8.0, 4.0, resume=folder, **more)
    assert len(jobs) == 3


# ---- what cannot be compared ----


def test_weights_that_stock_would_take_all_the_same_are_not_left_out(
    scenes: Path, tmp_path: Path, jobs: list[Any]
) -> None:
    with pytest.raises(ConfigurationError, match="all the same"):
        begin(scenes, tmp_path, 8.0, pretrained=False)
    assert not jobs


def test_a_classifier_has_no_map_to_compare(tmp_path: Path, jobs: list[Any]) -> None:
    for split in ("train", "val"):
        for kind in ("a", "b"):
            folder = tmp_path / "flowers" / split / kind
            folder.mkdir(parents=True)
            for number in range(12):
                noise = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8).numpy()
                Image.fromarray(noise).save(folder / f"{number}.png")
    with pytest.raises(ConfigurationError, match="of mAP"):
        begin(tmp_path / "flowers", tmp_path, 8.0, model="yolov8n-cls.yaml")
    assert not jobs


def test_a_teacher_that_may_be_the_stock_model_is_refused_before_there_is_one(
    scenes: Path, tmp_path: Path, jobs: list[Any]
) -> None:
    unnamed = torch.load(WEIGHTS, weights_only=False)
    unnamed["model"].args, unnamed["train_args"] = {}, {}
    torch.save(unnamed, tmp_path / "teacher.pt")
    teacher = {"teacher": str(tmp_path / "teacher.pt"), "teacher_data": "public"}
    with pytest.raises(UnsafeArgumentError, match="without privacy on these images") as caught:
        begin(scenes, tmp_path, 8.0, **teacher)
    assert caught.value.where == f"teacher={tmp_path / 'teacher.pt'}"
    assert not jobs


# ---- interrupted ----


def test_a_comparison_killed_in_its_first_training_begins_that_again(
    scenes: Path, tmp_path: Path, jobs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "left"

    def dying(job: Any) -> None:
        ids.append(job.run_id)
        (job.folder / "data").mkdir(parents=True)
        if not left.exists():
            shutil.copytree(job.folder.parent, left)  # as a power cut would leave it
        raise KeyboardInterrupt

    ids, measure = list[str](), comparing.in_a_process
    monkeypatch.setattr(comparing, "in_a_process", dying)
    for resume in (None, left):
        with pytest.raises(KeyboardInterrupt):
            begin(scenes, tmp_path, 8.0, resume=resume)
    assert (left / "comparison.json").exists()  # it was begun before: not ours to remove
    monkeypatch.setattr(comparing, "in_a_process", measure)
    begin(scenes, tmp_path, 8.0, resume=left)
    assert [job.contestant.kind for job in jobs] == ["stock", "twin", "private"]
    assert {*ids, *(job.run_id for job in jobs)} == {ids[0]}  # one training to the ledger


@pytest.mark.parametrize("last", ["stock", "twin"])
def test_a_row_that_was_measured_when_all_was_interrupted_is_not_measured_again(
    scenes: Path, tmp_path: Path, jobs: list[Any], monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    measure = comparing.in_a_process

    def interrupted(job: Any) -> None:
        measure(job)
        if job.contestant.kind == last:
            raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "in_a_process", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        begin(scenes, tmp_path, 8.0)
    folder = tmp_path / "compare"
    assert f"resume={folder} " in caught.value.__notes__[0]
    monkeypatch.setattr(comparing, "in_a_process", measure)
    begin(scenes, tmp_path, 8.0, resume=folder)
    assert [job.contestant.kind for job in jobs] == ["stock", "twin", "private"]
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    assert [row["kind"] for row in rows] == ["stock", "twin", "private"]
    assert not [path for path in folder.iterdir() if path.is_dir()]


@pytest.mark.parametrize("change", [{"kind": "stock"}, {"name": "other"}, {"map50": "abc"}, None])
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, change: dict[str, Any] | None) -> None:
    job = contestants.Job(
        contestant=Contestant(kind="twin"), arguments={}, stock_epochs=1, run_id="0" * 32,
        folder=tmp_path / "twin",
    )  # fmt: skip
    leave_row(job)
    job.measured()
    row = json.loads(job.row.read_text())
    job.row.write_text("" if change is None else json.dumps(row | change))
    with pytest.raises(ConfigurationError) as caught:
        job.measured()
    assert caught.value.where == str(job.row)


def test_a_comparison_that_ends_before_its_first_row_leaves_nothing(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "in_a_process", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        begin(scenes, tmp_path, 8.0)
    assert not list(tmp_path.iterdir())
    assert not hasattr(caught.value, "__notes__")  # nor is there anything to resume


def killed(_: Any) -> None:
    """In the contestant's process: be ended by the system."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_contestant_that_the_system_ends_is_named_and_what_is_kept_goes_on(
    scenes: Path, tmp_path: Path, jobs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(job: Any) -> None:
        measure(job) if job.contestant.kind == "stock" else contestants.in_a_process(job)

    measure = comparing.in_a_process
    monkeypatch.setattr(contestants, "_measure", killed)
    monkeypatch.setattr(comparing, "in_a_process", lost)
    with pytest.raises(TeamError, match="ended by the system") as caught:
        begin(scenes, tmp_path, 8.0)
    folder = tmp_path / "compare"
    assert caught.value.do == (
        "begin another comparison with a smaller imgsz, or free memory; "
        f"then resume with: discreet compare resume={folder} and the same words"
    )
    assert [job.contestant.kind for job in jobs] == ["stock"]
    monkeypatch.setattr(comparing, "in_a_process", contestants.in_a_process)
    with pytest.raises(TeamError) as caught:
        begin(scenes, tmp_path / "other", 8.0)
    assert "resume" not in str(caught.value.do) and not list((tmp_path / "other").iterdir())


@pytest.mark.parametrize("so_far", [0, 1])
def test_what_a_refused_budget_leaves_is_told(
    scenes: Path, tmp_path: Path, jobs: list[Any], monkeypatch: pytest.MonkeyPatch, so_far: int
) -> None:
    def refused(job: Any) -> None:
        if len(jobs) == so_far:
            raise BudgetError("used up", where="a ledger", do="stop")
        measure(job)

    measure = comparing.in_a_process
    monkeypatch.setattr(comparing, "in_a_process", refused)
    with pytest.raises(BudgetError) as caught:
        begin(scenes, tmp_path, 8.0)
    do = "A comparison also trains without privacy: compare on public images, which need no budget."
    assert caught.value.do == (do if so_far else f"{do} Nothing was recorded.")
