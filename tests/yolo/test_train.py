"""Whole private runs, small: what they leave, what they tell, how they go on."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO

from discreet import PrivateDetectionTrainer, PrivateYOLO
from discreet.accounting import event_from_json, make_accountant
from discreet.api import train
from discreet.errors import (
    ConfigurationError,
)
from discreet.result import TrainingResult
from discreet.statement.files import RELEASED
from discreet.statement.summary import from_description, summarise
from discreet.statement.verify import verify_release

from .conftest import ARCHITECTURE, IMGSZ, Run, tree

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def released(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """One finished run with validation on public data, GroupNorm."""
    return train(
        {
            "data": str(scenes),
            "model": ARCHITECTURE,
            "epsilon": 8,
            "batch": 8,
            "epochs": 1,
            "imgsz": IMGSZ,
            "val_data": "public",
            "seed": 424242,
            "project": str(tmp_path_factory.mktemp("project_folder")),
            "name": "run_name",
        }
    )


def test_ends_at_or_under_the_target_and_says_so(released: TrainingResult):
    assert 7 < released.spent.epsilon <= 8
    assert released.claim_valid
    assert released.spent.delta == 1e-5
    json.dumps(released.to_json(), allow_nan=False)
    assert set(released.to_json()["metrics"]) >= {"map50", "map50_95"}


def test_the_record_can_be_recomputed_by_a_stranger(released: TrainingResult):
    record = json.loads((released.release / "privacy.json").read_text())
    events = [event_from_json(event) for event in record["events"]]
    accountant = make_accountant(record["accountant"]["name"])
    epsilon = accountant.epsilon(events, delta=record["claim"]["delta"])
    assert epsilon == pytest.approx(record["claim"]["epsilon"], rel=1e-9)
    assert record["steps"] == {"planned": 3, "charged": 3, "executed": 3, "resumes": 0}
    assert record["sampling"]["sample_rate"] * record["data"]["training"]["units"] == 8
    weights = (released.release / record["weights"]["file"]).read_bytes()
    assert hashlib.sha256(weights).hexdigest() == record["weights"]["sha256"]
    assert record["claim_valid"] is True
    assert record["unit"]["neighboring_relation"] == "add_or_remove_one"


def test_a_tracker_that_fails_costs_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("tensorboard")
    told: list[Any] = []

    class Broken:
        def publish(self, run: Any, folder: Path) -> None:
            told.append(run)
            raise OSError("no route to host")

    monkeypatch.setattr("discreet.yolo.train.open_trackers", lambda names: {names: Broken()})
    result = run(track="tensorboard")
    (public,) = told
    assert [scalars["privacy/epsilon"] for _, scalars in public.rows][-1] == result.spent.epsilon
    assert str(tmp_path) not in repr(public)
    assert verify_release(result.release).valid


def test_the_release_of_a_run_verifies(released: TrainingResult):
    found = verify_release(released.release)
    assert found.valid, found.faults


def test_an_unsigned_run_is_asked_for(run: Run):
    result = run(sign=False)
    assert result.record.signer is None
    assert verify_release(result.release).valid
    with pytest.raises(ConfigurationError, match="Ed25519"):
        run(sign=str(result.release / "privacy.json"))


def test_nothing_of_this_machine_or_of_the_data_is_in_the_release(
    released: TrainingResult, scenes: Path
):
    files = sorted(p.name for p in released.release.iterdir())
    assert files == sorted(RELEASED)
    images = [p.name for p in (scenes.parent / "images").rglob("*.*")]
    forbidden = ["424242", str(scenes.parent), "project_folder", "run_name", "/tmp", *images]
    import zipfile

    texts = [released.release / name for name in files if name != "weights.pt"]
    contents = b"".join(path.read_bytes() for path in texts)
    with zipfile.ZipFile(released.weights) as archive:
        contents += b"".join(archive.read(n) for n in archive.namelist() if n.endswith("pkl"))
        contents += " ".join(archive.namelist()).encode()
    for word in forbidden:
        assert word.encode() not in contents, word


def test_the_weights_open_in_stock_ultralytics_alone(released: TrainingResult, tmp_path: Path):
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, *rest):
        if name.split('.')[0] == 'discreet':
            raise ImportError('the release must not need this package')
sys.meta_path.insert(0, Refuse())
from ultralytics import YOLO
from ultralytics.nn.tasks import torch_safe_load
torch_safe_load({str(released.weights)!r}, safe_only=True)
import numpy as np
model = YOLO({str(released.weights)!r})
assert model.names == {{0: 'red cell', 1: 'white cell', 2: 'platelet'}}, model.names
model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, verbose=False)
assert not [m for m in sys.modules if m.split('.')[0] == 'discreet']
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=tmp_path)


def test_released_weights_say_what_the_trained_model_says(
    released: TrainingResult, run: Run, monkeypatch: pytest.MonkeyPatch
):
    from discreet.yolo import release

    kept = {}
    original = release.releasable

    def remember(model: torch.nn.Module, **settings: Any) -> torch.nn.Module:
        kept["model"] = model
        return original(model, **settings)

    monkeypatch.setattr(release, "releasable", remember)
    image = torch.rand(1, 3, IMGSZ, IMGSZ)
    for norm in ("frozen", "group"):
        result = run(norm=norm)
        trained = kept["model"].eval()
        stock = YOLO(str(result.weights)).model.eval()
        assert not any(type(m).__module__.startswith("discreet") for m in stock.modules())
        with torch.inference_mode():
            before, after = trained(image)[0], stock(image)[0]
        boxes, scores = (before - after).abs()[0].split([4, 3])
        assert boxes.max() < 1, norm  # pixels, of boxes up to 250 wide; half precision
        assert scores.max() < 1e-3, norm


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_the_release_exports_to_onnx_and_agrees(run: Run, tmp_path: Path, norm: str):
    import onnxruntime

    result = run(norm=norm)
    stock = YOLO(str(result.weights))
    path = stock.export(format="onnx", imgsz=IMGSZ, simplify=False, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    said = from_description(session.get_modelmeta().custom_metadata_map["description"])
    assert said == summarise(result.record)
    image = torch.rand(1, 3, IMGSZ, IMGSZ)
    exported = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
    with torch.inference_mode():
        expected = YOLO(str(result.weights)).model.float().eval()(image)[0]
    assert torch.allclose(torch.from_numpy(exported), expected, rtol=1e-3, atol=1e-2)


def test_private_validation_stays_inside(run: Run):
    result = run(val=True)
    record = json.loads((result.release / "privacy.json").read_text())
    assert record["metrics"] is None
    assert result.metrics is not None
    assert json.loads((result.internal / "metrics.json").read_text())["map50"] >= 0
    assert "NOT" in (result.internal / "NOT-PRIVATE.txt").name
    assert stat.S_IMODE(result.internal.stat().st_mode) == 0o700
    files = [path for path in result.internal.iterdir() if path.is_file()]
    assert {"args.yaml", "steps.csv"} <= {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    report = (result.release / "report.html").read_text()
    assert "data:image" not in report
    assert "data-validation" not in report


def test_public_validation_is_released(released: TrainingResult):
    record = json.loads((released.release / "privacy.json").read_text())
    assert set(record["metrics"]) == {"precision", "recall", "map50", "map50_95"}
    report = (released.release / "report.html").read_text()
    assert report.count("data:image/jpeg;base64,") == 6
    assert len(report) < 2_000_000


@pytest.mark.parametrize("given", [{"insecure_seed": 1}, {"noise_multiplier": 0, "epsilon": None}])
def test_runs_that_are_not_private_say_so(run: Run, given: dict[str, Any]):
    result = run(**given)
    record = json.loads((result.release / "privacy.json").read_text())
    assert record["claim_valid"] is False
    assert record["claim"]["reasons_against"]
    assert not result.claim_valid
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.slow
def test_insecure_runs_repeat_and_secure_ones_do_not(run: Run):
    def weights(**given: Any) -> torch.Tensor:
        state = YOLO(str(run(**given).weights)).model.state_dict()
        return torch.cat([value.float().flatten() for value in state.values()])

    def apart(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).norm() / a.norm())

    assert apart(weights(insecure_seed=1), weights(insecure_seed=1)) < 1e-3
    assert apart(weights(seed=1), weights(seed=1)) > 1e-2


def test_only_what_trains_moves(run: Run):
    start = YOLO(str(run(noise_multiplier=0, epsilon=None, lr0=1e-12).weights)).model.state_dict()
    moved = YOLO(str(run(trainable="head", insecure_seed=0, lr0=0.5).weights)).model.state_dict()
    changed = {name for name in start if not torch.equal(start[name], moved[name])}
    assert changed
    assert all(name.startswith("model.22.cv") or ".22." in name for name in changed)


def test_engines_end_at_the_same_weights(run: Run):
    def weights(engine: str) -> torch.Tensor:
        result = run(
            engine=engine, insecure_seed=3, optimizer="SGD", lr0=0.1, trainable="all", norm="group"
        )
        state = YOLO(str(result.weights)).model.state_dict()
        return torch.cat([value.float().flatten() for value in state.values()])

    own, opacus = weights("discreet"), weights("opacus")
    assert float((own - opacus).norm() / own.norm()) < 1e-3  # released in half precision


# ---- callbacks and Ultralytics' own entrance ----


def test_callbacks_fire_in_order(scenes: Path, tmp_path: Path):
    events: list[str] = []
    yolo = PrivateYOLO(ARCHITECTURE)
    names = [
        "on_pretrain_routine_start", "on_pretrain_routine_end", "on_train_start",
        "on_train_epoch_start", "on_train_batch_start", "on_train_batch_end",
        "on_train_epoch_end", "on_fit_epoch_end", "on_model_save", "on_train_end", "teardown",
    ]  # fmt: skip
    for name in names:
        yolo.add_callback(name, lambda _, name=name: events.append(name))
    yolo.train(
        data=str(scenes), epsilon=8, batch=24, steps=2, imgsz=IMGSZ, val=False,
        project=str(tmp_path),
    )  # fmt: skip
    per_epoch = [
        "on_train_epoch_start", "on_train_batch_start", "on_train_batch_end",
        "on_train_epoch_end", "on_fit_epoch_end",
    ]  # fmt: skip
    assert events == [*names[:3], *per_epoch, *per_epoch, *names[-3:]]


def test_callbacks_see_no_training_losses(scenes: Path, tmp_path: Path):
    seen: list[Any] = []
    yolo = PrivateYOLO(ARCHITECTURE)
    yolo.add_callback("on_fit_epoch_end", lambda t: seen.append((t.tloss, t.loss_items, t.metrics)))
    yolo.train(data=str(scenes), epsilon=8, batch=24, steps=1, imgsz=IMGSZ, project=str(tmp_path))
    assert seen == [({}, {}, {})]


def test_as_the_trainer_inside_ultralytics(released: TrainingResult, scenes: Path, tmp_path: Path):
    model = YOLO(ARCHITECTURE)
    events = []
    model.add_callback("on_train_end", lambda trainer: events.append(trainer.result.spent.epsilon))
    trainer = PrivateDetectionTrainer.configure(epsilon=8, batch=8)
    model.train(trainer=trainer, data=str(scenes), epochs=1, imgsz=IMGSZ, project=str(tmp_path))
    assert 7 < events[0] <= 8
    assert type(model.model).__module__ == "ultralytics.nn.tasks"
    assert model.predict(torch.zeros(1, 3, IMGSZ, IMGSZ), verbose=False)
    assert (tmp_path / "train" / "release" / "privacy.json").exists()


def test_a_part_that_does_not_fit_the_memory_is_halved_without_a_trace(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    from discreet.yolo import loop as room

    def weights() -> torch.Tensor:
        result = run(insecure_seed=1, micro_batch=8, optimizer="SGD", lr0=0.5, noise_multiplier=0.0,
                     epsilon=None)  # fmt: skip
        state = YOLO(str(result.weights)).model.state_dict()
        return torch.cat([value.float().flatten() for value in state.values()])

    plain = weights()
    original = room.make_engine

    def small_memory(*arguments: Any) -> Any:
        engine = original(*arguments)
        compute = engine.per_example_gradients

        def limited(losses: Any, units: Any = None) -> Any:
            def measured() -> torch.Tensor:
                values = losses()
                if len(values) > 3:
                    raise torch.OutOfMemoryError("out of memory")
                return values

            return compute(measured, units)

        engine.per_example_gradients = limited
        return engine

    monkeypatch.setattr(room, "make_engine", small_memory)
    assert float((weights() - plain).norm() / plain.norm()) < 1e-4


# ---- what a run touches ----


@pytest.mark.slow
@pytest.mark.checked
def test_a_run_uses_no_network_and_never_writes_to_the_data_set(
    run: Run, scenes: Path, monkeypatch: pytest.MonkeyPatch
):
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    before = tree(scenes.parent)
    assert run(val=True).release.exists()
    assert tree(scenes.parent) == before
    assert os.environ["YOLO_OFFLINE"] == "true"
