"""Groups of images as privacy units, from the file to the release."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import DEFAULT_CFG

from discreet.accounting import epsilon_of_runs, event_from_json, make_accountant
from discreet.api import train
from discreet.clipping import FlatClipping
from discreet.data import ImageRecord, load_dataset
from discreet.errors import ConfigurationError, LedgerError, ReleaseError
from discreet.gradients import make_engine
from discreet.ledger import BudgetLedger
from discreet.privacy import PrivacyUnit
from discreet.statement.verify import verify_release
from discreet.units import PrivacyUnits
from discreet.yolo import finishing
from discreet.yolo.audit import audit_run
from discreet.yolo.checking import check_arguments
from discreet.yolo.dataset import ImageSettings, RecordDataset
from discreet.yolo.keeping import Keeper
from discreet.yolo.loading import MicroBatches
from discreet.yolo.loop import StepLoop
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.microbatch import halves, packed, units_of

from .conftest import ARCHITECTURE, IMGSZ, TAKEN_APART, make_batch, make_model, trained
from .test_views import Numbers, trainer_of

pytestmark = pytest.mark.usefixtures("unchecked")

N, GROUPS = 24, 7  # images of `scenes`, and the groups made of them here


def key_of(number: int) -> str:
    """Sizes from 1 to 8; a name that nothing else has."""
    return f"patient-ax{int((2 * number) ** 0.5)}"


@pytest.fixture
def groups(scenes: Path, tmp_path: Path) -> Path:
    images = sorted((scenes.parent / "images/train").iterdir())
    return write_groups(tmp_path / "groups.csv", {i.name: key_of(n) for n, i in enumerate(images)})


def write_groups(path: Path, keys: Mapping[str, str], split: str = "train") -> Path:
    with path.open("a", newline="") as stream:
        writer = csv.writer(stream)
        if stream.tell() == 0:
            writer.writerow(["split", "image", "group"])
        writer.writerows([split, image, key] for image, key in keys.items())
    return path


def run(scenes: Path, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "data": str(scenes), "model": ARCHITECTURE, "epsilon": 8, "batch": 3, "steps": 2,
        "imgsz": IMGSZ, "val": False, "project": str(tmp_path / "runs"), **more,
    }  # fmt: skip


# ---- the path of a unit ----


@pytest.mark.parametrize("engine", ["discreet", "reference", "opacus"])
def test_a_unit_is_the_mean_of_its_images(engine: str):
    model = make_model(trainable="film+head")
    parameters = trained(model)
    made = make_engine(engine, model, parameters)
    batch = make_batch([3, 1, 2, 4, 0, 2])

    def gradients(batch: dict[str, Any]) -> Any:
        return StepLoop(trainer_of(model)).gradients_of(made, batch)

    def rows(of: Any, count: int) -> torch.Tensor:
        weights = torch.eye(count)
        sums = [of.weighted_sum(dict.fromkeys(parameters, row)) for row in weights]
        return torch.stack([torch.cat([s[n].flatten() for n in parameters]) for s in sums])

    apart = rows(gradients(batch), 6)
    sizes = [1, 3, 2]
    together = rows(gradients({**batch, "unit_sizes": sizes}), 3)
    means = torch.stack([part.mean(0) for part in apart.split(sizes)])
    assert torch.allclose(together, means, rtol=1e-3, atol=1e-5 * float(means.abs().max()))


@pytest.mark.parametrize("size", [1, 2, 5, 9, 64])
@pytest.mark.parametrize("views", [1, 3])
def test_no_part_breaks_a_unit_apart(size: int, views: int):
    units = [(4, 7, 9), (1,), (2, 3), (5, 6, 8, 10)]
    draws = iter([units, [], [(11,)]])
    parts = MicroBatches(Numbers(), draws, first_step=1, micro_batch_size=size, views=views)  # pyright: ignore
    for step, draw in enumerate([units, [], [(11,)]], start=1):
        seen: list[list[list[int]]] = []
        for part in parts.next_step():
            sizes = part.get("unit_sizes", [1] * len(part["img"]))
            assert sum(sizes) == len(part["img"])
            # Memory: what was asked for, or one unit.
            assert len(part["img"]) <= size or len(sizes) == 1
            seen += [part.tolist() for part in part["img"].split(sizes)]
        wanted = [[[step, i, view] for i in unit for view in range(views)] for unit in draw]
        assert seen == wanted


def test_parts_are_filled():
    assert [len(part) for part in packed([[1, 2], [3], [4, 5, 6], [7]], 3)] == [2, 1, 1]


def test_halves_keep_units_together():
    batch = {**make_batch([1, 2, 0, 3, 1, 1]), "unit_sizes": [3, 1, 2]}
    first, second = halves(batch)
    assert (first["unit_sizes"], second["unit_sizes"]) == ([3], [1, 2])
    assert [len(part["img"]) for part in (first, second)] == [3, 3]
    assert len(halves(first)) == 1
    units, weights = units_of(second, torch.device("cpu"))
    assert units is not None and units.index.tolist() == [0, 1, 1]
    assert torch.as_tensor(weights).tolist() == [1, 0.5, 0.5]


def sum_of(
    records: Sequence[ImageRecord], *, bound: float, salt: bytes, data: Any = None
) -> torch.Tensor:
    """The clipped sum of all units of these images, by the trainer's own parts."""
    model = make_model("group")
    parameters, loss = trained(model), PerImageLoss(model)
    dataset = replace(data, train=tuple(records))
    units: PrivacyUnits = dataset.units(max_images=3)
    images = RecordDataset(
        records,
        ImageSettings(
            data={"names": {0: "a", 1: "b", 2: "c"}, "nc": 3, "channels": 3},
            imgsz=IMGSZ,
            hyp=SimpleNamespace(**vars(DEFAULT_CFG)),  # pyright: ignore
            augment=True,
        ),
    )
    draw = [units.choose(unit, salt) for unit in range(len(units))]
    parts = MicroBatches(images, iter([draw]), first_step=4, micro_batch_size=5)
    engine, total = make_engine("discreet", model, parameters), torch.zeros(())
    trainer = trainer_of(model)
    trainer.per_image_loss = loss
    for part in parts.next_step():
        batch = {**part, "img": part["img"].float() / 255}
        gradients = StepLoop(trainer).gradients_of(engine, batch)
        sums = FlatClipping(max_grad_norm=bound).clip_and_sum(gradients).sums
        total = total + torch.cat([sums[name].flatten() for name in parameters])
    return total


@pytest.mark.parametrize("bound", [pytest.param(1.0, marks=pytest.mark.slow), 1e6])
def test_removing_a_whole_unit_moves_the_sum_by_at_most_the_bound(scenes: Path, bound: float):
    """From the files to the sum, with augmentation and choice: the sensitivity is true.

    At a bound that clips nothing, it moves by the unit's own mean gradient and not by more.
    """
    data = load_dataset(scenes)
    records = [replace(r, group=key_of(n)) for n, r in enumerate(data.train[:14])]
    salt = b"a step"
    whole = sum_of(records, bound=bound, salt=salt, data=data)
    for key in sorted({r.group for r in records if r.group})[1:5]:
        mine = [r for r in records if r.group == key]
        rest = [r for r in records if r.group != key]
        moved = whole - sum_of(rest, bound=bound, salt=salt, data=data)
        alone = sum_of(mine, bound=bound, salt=salt, data=data)
        assert float(moved.norm()) <= bound * 1.001
        assert float((moved - alone).norm()) <= 2e-3 * float(alone.norm()) + 1e-6


def test_the_order_of_images_and_units_does_not_matter(scenes: Path):
    data = load_dataset(scenes)
    records = [replace(r, group=key_of(n)) for n, r in enumerate(data.train[:10])]
    before = sum_of(records, bound=1.0, salt=b"a step", data=data)
    after = sum_of(records[::-1], bound=1.0, salt=b"a step", data=data)
    assert float((before - after).norm()) <= 1e-3 * float(before.norm())


# ---- a run ----


def test_a_run_counts_units_and_says_so(scenes: Path, groups: Path, tmp_path: Path):
    result = train(run(scenes, tmp_path, groups=str(groups), max_images_per_unit=3, views=2))
    record = result.record
    assert verify_release(result.release).valid
    assert record.unit.kind is PrivacyUnit.GROUP
    assert (record.unit.grouping_key, record.unit.max_images_per_unit) == ("file", 3)
    assert record.data.training.units == GROUPS
    assert record.sampling.sample_rate == pytest.approx(3 / GROUPS)
    assert record.spent.unit is PrivacyUnit.GROUP
    page = (result.release / "PRIVACY.md").read_text()
    assert "patient, person" in page and "all images of one group" in page
    text = "".join(p.read_bytes().decode("latin-1") for p in result.release.iterdir())
    assert "patient-ax" not in text and "groups.csv" not in text
    assert str(N) not in json.dumps(record.data.model_dump(mode="json"))  # nor how many images


def test_a_pattern_is_told_as_one_and_not_published(scenes: Path, tmp_path: Path):
    pattern = r"images/train/\D*\d*(\d)\."
    result = train(run(scenes, tmp_path, group_regex=pattern))
    assert result.record.unit.grouping_key == "pattern"
    assert result.record.data.training.units == 10
    assert result.record.unit.max_images_per_unit == 4
    text = "".join(p.read_bytes().decode("latin-1") for p in result.release.iterdir())
    assert pattern not in text


def test_a_key_in_the_release_is_found(
    scenes: Path, groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = finishing.record_of

    def talkative(*args: Any) -> Any:
        return own(*args).model_copy(update={"configuration": {"optimizer": f"for {key_of(0)}"}})

    monkeypatch.setattr(finishing, "record_of", talkative)
    with pytest.raises(ReleaseError, match=key_of(0)):
        train(run(scenes, tmp_path, groups=str(groups)))


def test_whom_training_hides_validation_may_not_show(scenes: Path, groups: Path, tmp_path: Path):
    image = min((scenes.parent / "images/val").iterdir()).name
    write_groups(groups, {image: key_of(3)}, split="val")
    arguments = run(scenes, tmp_path, groups=str(groups))
    with pytest.raises(ConfigurationError, match="val_data=public"):
        train({**arguments, "val": True, "val_data": "public"})
    assert train(arguments).claim_valid  # they stay inside


class InterruptedRunError(Exception):
    pass


def test_a_run_goes_on_with_the_same_groups_only(
    scenes: Path, groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(keeper: Keeper) -> None:
        keeper.save()
        if keeper._trainer.executed == 1:
            raise InterruptedRunError

    arguments = run(scenes, tmp_path, groups=str(groups))
    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "save_where_cheap", interrupt)
        with pytest.raises(InterruptedRunError):
            train(arguments)
    place = str(tmp_path / "runs/train")
    content = groups.read_text()
    groups.write_text(content.replace(key_of(4), key_of(1), 1))  # one image, as many groups
    with pytest.raises(ConfigurationError, match="groups or class names"):
        train({"resume": place})
    groups.write_text(content.replace("patient", "PATIENT"))  # other names of the same groups
    result = train({"resume": place})
    assert (result.record.steps.charged, result.record.steps.executed) == (2, 2)
    assert result.record.unit.kind is PrivacyUnit.GROUP


@pytest.mark.slow
def test_later_runs_with_other_units_are_told_for_an_image(
    scenes: Path, groups: Path, tmp_path: Path
):
    grouped = train(run(scenes, tmp_path, groups=str(groups)))
    again = train(run(scenes, tmp_path, groups=str(groups)))
    assert again.record.spent.unit is PrivacyUnit.GROUP and again.record.spent.runs == 2
    single = train(run(scenes, tmp_path))
    spent = single.record.spent
    assert spent.unit is PrivacyUnit.IMAGE and spent.neighboring_relation == "replace_one"
    assert spent.runs == 3
    events = [event_from_json(event) for event in spent.events]
    unchanged = epsilon_of_runs(events, delta=spent.delta, accountant=make_accountant("pld"))
    assert spent.total > 1.1 * unchanged  # a changed group is not a removed one
    assert verify_release(single.release).valid
    assert any("other privacy units" in warning for warning in single.record.warnings)
    assert grouped.record.spent.total == grouped.record.claim.epsilon
    names = json.dumps([d.name for d in BudgetLedger.open().datasets()])
    assert "patient" not in names


# ---- check and audit ----


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_check_takes_units(scenes: Path, groups: Path, tmp_path: Path, full: bool):
    report = check_arguments(run(scenes, tmp_path, groups=str(groups)), full=full)
    assert report.passed
    assert any(f.probe == "units" and f.verdict == "passed" for f in report.findings)


@pytest.mark.slow
def test_the_check_sees_a_choice_that_looks_at_places(
    scenes: Path, groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def by_place(self: PrivacyUnits, unit: int, salt: bytes) -> tuple[int, ...]:
        start = unit % len(self.members[unit])
        return (self.members[unit] * 2)[start : start + self.max_images]

    monkeypatch.setattr(PrivacyUnits, "choose", by_place)
    report = check_arguments(run(scenes, tmp_path, groups=str(groups)))
    assert [f.probe for f in report.findings if f.verdict == "failed"] == ["units"]


@pytest.mark.parametrize("attack", ["gradient", "image"])
def test_an_audit_plants_units(scenes: Path, groups: Path, tmp_path: Path, attack: Any):
    done = audit_run(run(scenes, tmp_path, groups=str(groups), batch=8), attack=attack, canaries=20)
    assert done.training.record.data.training.units == GROUPS + 20
    assert not done.result.refuted


def test_a_ledger_that_forgot_the_groups_stops_the_run(
    scenes: Path, groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Charged image by image where units are groups: the resumed run would be another's."""
    arguments = run(scenes, tmp_path, groups=str(groups))
    with monkeypatch.context() as patch:
        patch.setattr(PrivacyUnits, "of_images", property(lambda self: range(len(self.digests))))
        patch.setattr(finishing, "finish", _interrupt)
        with pytest.raises(InterruptedRunError):
            train(arguments)
    with pytest.raises(LedgerError, match="other images than these"):
        train({"resume": str(tmp_path / "runs/train")})


def _interrupt(*_: Any, **__: Any) -> None:
    raise InterruptedRunError


def test_collating_keeps_whole_units(scenes: Path):
    """What `units_of` counts on: images of a part come in the order of its indices."""
    data = load_dataset(scenes)
    images = RecordDataset(
        data.train[:3],
        ImageSettings(
            data={"names": {0: "a"}, "nc": 3, "channels": 3},
            imgsz=IMGSZ,
            hyp=SimpleNamespace(**vars(DEFAULT_CFG)),  # pyright: ignore
            augment=True,
        ),
    )
    batch = YOLODataset.collate_fn([images[(1, i)] for i in (2, 0)])
    assert [Path(f) for f in batch["im_file"]] == [data.train[2].image, data.train[0].image]


def test_a_run_reads_the_images_of_every_drawn_unit(
    scenes: Path, groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read: list[int] = []
    own = StepLoop.gradients_of

    def gradients_of(self: Any, engine: Any, batch: dict[str, Any]) -> Any:
        if self.trainer.charged or "im_file" in batch:
            read.extend(batch.get("unit_sizes", [1] * len(batch["batch_idx"].unique())))
        return own(self, engine, batch)

    monkeypatch.setattr(StepLoop, "gradients_of", gradients_of)
    train(run(scenes, tmp_path, groups=str(groups), batch=GROUPS, steps=1, max_images_per_unit=3))
    sizes = [sum(key_of(n) == key for n in range(N)) for key in map(key_of, range(N))]
    groups_of = dict(zip(map(key_of, range(N)), sizes, strict=True))
    assert sorted(read) == sorted(min(3, size) for size in groups_of.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "mistake", "probe"),
    [
        *TAKEN_APART,
        pytest.param(
            "discreet.yolo.loading.packed",
            lambda units, _size: ([[image]] for unit in units for image in unit),
            "units",
            id="packed apart",
        ),
    ],
)
def test_the_check_sees_units_that_are_taken_apart(
    scenes: Path,
    groups: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    mistake: Any,
    probe: str,
):
    monkeypatch.setattr(place, mistake)
    report = check_arguments(run(scenes, tmp_path, groups=str(groups)))
    assert probe in [f.probe for f in report.findings if f.verdict == "failed"]
