from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import discreet
import discreet.demo
from discreet.cli import main
from discreet.demo.dataset import write_dataset
from discreet.demo.scenes import PRIVATE
from discreet.planning.cost import StepTime
from discreet.recipes import rules

COCO8 = ["plan", "n=4", "noise_multiplier=1.2", "batch=4", "epochs=100", "delta=1e-5"]
DEMO_MODEL = str(Path(discreet.demo.__file__).with_name("demo-model.pt"))
STEP = StepTime(
    model="m", imgsz=640, device="CPU", seconds_per_image=0.5, seconds_per_step=0.1, parameters=10
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    return write_dataset(folder, style=PRIVATE, train=6, val=2, size=64, seed=5)


def digests(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_oracle_as_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert main([*COCO8, "time=false", "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert captured.out.count("\n") == 1 and "asking every accountant" in captured.err
    assert told["epsilon"]["pld"] == pytest.approx(69.46, abs=0.01)
    assert told["epsilon"]["rdp"] == pytest.approx(72.98, abs=0.01)
    assert told["epsilon"]["prv"] == pytest.approx(69.47, abs=0.01)
    assert told["steps"] == 100 and told["sample_rate"] == 1 and told["delta"] == 1e-5
    assert told["noise_multiplier"] == 1.2 and told["noise_per_coordinate"] == 0.3
    assert told["epsilon_without_sampling"] == told["epsilon"]["pld"]
    assert told["replace_one"] == told["groups"]["2"] > 2 * told["epsilon"]["pld"]
    assert told["per_epoch"]["100"] == told["epsilon"]["pld"]
    assert sum(cell["requested"] for cell in told["table"]) == 1
    assert "for ε = 8 you would need σ = 6.00" in told["verdict"]
    assert set(told["advice"]) >= {"batch", "delta", "lr0", "warmup_epochs"}
    assert told["seconds"] is None
    assert list(tmp_path.iterdir()) == []  # nothing is written, nothing spent


def test_for_a_person_and_with_a_plot(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "n=4", "epsilon=8", "batch=4", "steps=10", "--plot", "time=False"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "weak privacy" in captured.out and captured.out.endswith("plot: plan.svg\n")
    assert max(map(len, captured.out.splitlines())) <= 80
    assert [path.name for path in tmp_path.iterdir()] == ["plan.svg"]
    ElementTree.parse(tmp_path / "plan.svg")


def test_the_data_set_is_counted_and_never_touched(
    scenes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(scenes.parent)
    before = digests(scenes.parent)
    words = ["plan", f"data={scenes}", "noise_multiplier=3", "steps=2", "time=false", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["population"] == 6
    assert digests(scenes.parent) == before


def test_a_plot_among_the_images_is_refused(scenes: Path, capsys: pytest.CaptureFixture[str]):
    (image, *_) = sorted(scenes.parent.rglob("train/*.png")) or sorted(
        scenes.parent.rglob("train/*.jpg")
    )
    before = digests(scenes.parent)
    plot = image.with_suffix(".png")
    words = ["plan", f"data={scenes}", "epsilon=8", f"plot={plot}", "time=false"]
    assert main(words) == 2
    assert "lies among the training images" in capsys.readouterr().err
    assert digests(scenes.parent) == before


def test_the_time_is_measured_unless_it_is_turned_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    import discreet.yolo.timing

    asked: list[object] = []

    def measure_step(*arguments: object, bfloat16: bool, device: object) -> StepTime:
        asked.append((*arguments, bfloat16))
        return STEP

    monkeypatch.setattr(discreet.yolo.timing, "measure_step", measure_step)
    words = ["plan", "n=4", "noise_multiplier=5", "batch=4", "steps=10", "--json"]
    assert main(words) == 0
    assert asked == [(None, 640, "class_film+classes", 1, False)]
    assert json.loads(capsys.readouterr().out)["seconds"] == pytest.approx(21)
    asked.clear()
    assert main([*words, "time=false"]) == 0
    made = discreet.plan(n=4, noise_multiplier=5, batch=4, steps=10)
    assert asked == [] and made.seconds is None
    timed = discreet.plan(n=4, noise_multiplier=5, batch=4, steps=10, model=DEMO_MODEL, imgsz=32)
    assert asked == [(DEMO_MODEL, 32, "class_film+classes", 2, False)]
    assert timed.seconds == pytest.approx(21)
    asked.clear()
    assert main([*words, "amp=bf16"]) == 0
    assert asked == [(None, 640, "class_film+classes", 1, True)]


def test_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]):
    assert main([*COCO8, "model=gone.pt"]) == 2
    assert "model=gone.pt: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan"], "data: missing"),
        (["plan", "n=4"], "epsilon: missing"),
        (["plan", "n=4", "epsilon=8", "batch=5"], "batch=5: the expected batch size is more"),
        (["plan", "n=4", "epsilon=8", "epsilom=8"], "did you mean epsilon?"),
        (["plan", "n=4", "epsilon=8", "data=d.yaml"], "data, n: both are given"),
        (["plan", "data=gone.yaml", "epsilon=8", "time=false"], "gone.yaml"),
        (["plan", "n=4", "epsilon=8", "plot=a.gif"], ".svg or .png"),
        (["plan", "n=4", "n=5", "epsilon=8"], "given twice"),
    ],
)
def test_mistakes_end_with_status_2(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
):
    assert main([*words, "--json"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "error" in json.loads(captured.out)


def test_the_page_lists_every_argument(capsys: pytest.CaptureFixture[str]):
    from discreet.arguments.plan import names

    assert main(["plan", "--help"]) == 0
    page = capsys.readouterr().out
    for name in names():
        assert f"\n  {name} " in page
    assert main(["plan", "--help", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in told["arguments"]] == list(names())


def test_python_gives_the_numbers():
    made = discreet.plan(n=4, noise_multiplier=1.2, batch=4, steps=100, delta=1e-5)
    assert isinstance(made, discreet.Plan)
    assert made.epsilon["pld"] == pytest.approx(69.46, abs=0.01)
    with pytest.raises(discreet.DiscreetError, match="both are given"):
        discreet.plan(n=4, data="d.yaml", epsilon=8)
    with pytest.raises(TypeError):
        discreet.plan(n=4, epsilom=8)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "words",
    [
        ["n=1e30", "epsilon=8"],
        ["n=10", "noise_multiplier=1e308", "batch=2"],
        ["n=10", "noise_multiplier=1", "batch=2", "steps=1e18"],
        ["n=10", "epsilon=8", "plot=a\0.svg"],
        ["data=\udcff/data.yaml", "epsilon=8"],
    ],
)
def test_numbers_and_names_beyond_all_bounds(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["plan", *words, "time=false"]) == 2
    assert "unexpected" not in capsys.readouterr().err


def test_python_takes_no_number_beyond_all_bounds():
    for given in ({"n": 10**400, "steps": 1}, {"n": 10, "plot": "a\0.svg"}):
        with pytest.raises(discreet.DiscreetError):
            discreet.plan(epsilon=8, batch=1, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "promised", "told"),
    [
        ({"relation": "replace_one"}, "replace_one", "replace one"),
        ({"sampling": "shuffle"}, None, "shuffled: accounted without amplification"),
        ({"sampling": "truncated_poisson", "largest_batch": 400}, None, "Poisson, cut at 400"),
        pytest.param(
            {"noise_schedule": "step", "final_noise": 0.5}, None, "step", marks=pytest.mark.slow
        ),
        ({"clipping": "adaptive"}, None, "adaptive"),
    ],
)
def test_a_plan_of_all_that_train_offers(given: dict[str, Any], promised: str | None, told: str):
    made = discreet.plan(n=1008, epsilon=8, batch=252, steps=4, **given)
    assert told in made.to_text()
    facts = made.to_json()
    epsilon = facts["epsilon"]["pld"] if promised is None else facts[promised]
    assert 7.9 < epsilon <= 8


@pytest.mark.slow
def test_a_plan_is_that_of_the_models_task_and_zoom(tmp_path: Path):
    from discreet.yolo.model import open_source

    source = open_source("yolov8n-cls.yaml")
    source.args = {"imgsz": 640}
    weights = tmp_path / "classes.pt"
    torch.save({"model": source}, weights)
    classes = discreet.plan(n=4, epsilon=8, model=weights)
    assert classes.time is not None and classes.time.imgsz == 224
    assert classes.chosen.values()["zoom"] == 1  # 2 for a detector
    twice = discreet.plan(n=4000, epsilon=8, zoom=2)
    once = discreet.plan(n=4000, epsilon=8)
    # Enlarged images get fewer passes, in fewer steps.
    assert (batch_of(twice), batch_of(once)) == (400, 1000)


def batch_of(plan: discreet.Plan) -> int:
    return plan.training.mechanism.expected_batch_size


@pytest.mark.parametrize("more", ["classes=[7]", "classes=[1] single_cls=True"])
def test_a_plan_refuses_classes_that_the_data_have_not(
    scenes: Path, more: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["plan", f"data={scenes}", "epsilon=8", "time=false", *more.split()]) == 2
    assert "there is no class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ([], "film+classes"),
        (["single_cls=True"], "class_film+classes"),
        (["classes=[0,1]"], "class_film+classes"),
    ],
)
def test_a_plan_knows_how_many_classes_are_learned(
    scenes: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    parts: str,
):
    monkeypatch.setattr(rules, "_PLENTY_FOR_MANY", 10)
    monkeypatch.setattr(rules, "_MANY_CLASSES", 3)
    words = [f"data={scenes}", "epsilon=8", "batch=3", "steps=2", "time=false", "--json"]
    assert main(["plan", *words, *more]) == 0
    assert json.loads(capsys.readouterr().out)["trainable"] == parts
