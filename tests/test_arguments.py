from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from discreet.arguments import (
    ULTRALYTICS,
    Argument,
    Kind,
    PrivacyArguments,
    is_flag,
    known_names,
    neutral_values,
    parse_value,
    split_arguments,
)
from discreet.arguments.privacy import kind_of, names
from discreet.arguments.refused import OUTSIDE_CONFIGURATION
from discreet.arguments.values import check_value, example_of
from discreet.errors import ConfigurationError, UnsafeArgumentError


def of_kind(kind: Kind) -> dict[str, Argument]:
    return {name: entry for name, entry in ULTRALYTICS.items() if entry.kind is kind}


@pytest.fixture(scope="module")
def default_yaml() -> Path:
    spec = importlib.util.find_spec("ultralytics")  # finds the file without importing it
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "cfg" / "default.yaml"


def unsafe_value(name: str) -> object:
    """A value of a refused argument that voids the guarantee."""
    special: dict[str, object] = {
        "rect": True,
        "plots": True,
        "amp": True,
        "cache": "disk",
        "split": "train",
        "patience": 50,
        "quantize": 8,
        "fraction": 0.5,
        "distill_model": "teacher.pt",
    }
    return special.get(name, 0.5)


# ---- privacy arguments ----


def test_defaults_are_those_of_the_documentation() -> None:
    arguments = PrivacyArguments(epsilon=8)
    assert arguments.model_dump() == {
        "epsilon": 8.0,
        "noise_multiplier": None,
        "delta": None,
        "max_grad_norm": 1.0,
        "recipe": "auto",
        "clipping": None,
        "batch": None,
        "micro_batch": None,
        "feature_cache": None,
        "epochs": None,
        "steps": None,
        "norm": None,
        "trainable": None,
        "zoom": None,
        "norm_lr": None,
        "ema": None,
        "balance": None,
        "standardise": None,
        "views": None,
        "first_trainable": None,
        "first_steps": None,
        "public_data": None,
        "teacher": None,
        "teacher_data": None,
        "teacher_gain": None,
        "groups": None,
        "group_regex": None,
        "max_images_per_unit": None,
        "sampling": "poisson",
        "largest_batch": None,
        "noise_schedule": "constant",
        "final_noise": None,
        "relation": "add_or_remove_one",
        "ledger": None,
        "sign": True,
        "accountant": "pld",
        "val_data": "private",
        "track": None,
        "engine": "discreet",
        "team_timeout": 600.0,
        "insecure_seed": None,
    }
    assert arguments.is_private


def test_text_from_a_command_line_is_read() -> None:
    arguments = PrivacyArguments(
        noise_multiplier="1.2", delta="1e-5", batch="1e3", steps="100", norm="None"
    )
    assert (arguments.noise_multiplier, arguments.delta) == (1.2, 1e-5)
    assert (arguments.batch, arguments.steps, arguments.norm) == (1000, 100, None)


def test_steps_replace_epochs() -> None:
    assert PrivacyArguments(epsilon=1, steps=5).epochs is None
    assert PrivacyArguments(epsilon=1, epochs=5).epochs == 5


def test_arguments_are_immutable() -> None:
    with pytest.raises(ValidationError):
        PrivacyArguments(epsilon=8).epsilon = 9.0


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"epsilon": 8, "noise_multiplier": 1}, ["epsilon", "noise_multiplier"]),
        ({}, ["epsilon", "noise_multiplier"]),
        ({"epsilon": None}, ["epsilon"]),
        ({"epsilon": "none"}, ["epsilon"]),
        ({"epsilon": 8, "epochs": 3, "steps": 4}, ["epochs", "steps"]),
        ({"epsilon": 0}, ["epsilon=0", "a number > 0"]),
        ({"epsilon": math.inf}, ["epsilon=inf"]),
        ({"epsilon": "nan"}, ["epsilon=nan"]),
        ({"epsilon": True}, ["epsilon=True"]),
        ({"noise_multiplier": -1}, ["noise_multiplier=-1"]),
        ({"epsilon": 8, "delta": 0}, ["delta=0"]),
        ({"epsilon": 8, "delta": 1}, ["delta=1"]),
        ({"epsilon": 8, "max_grad_norm": 0}, ["max_grad_norm=0"]),
        ({"epsilon": 8, "max_grad_norm": math.inf}, ["max_grad_norm=inf"]),
        ({"epsilon": 8, "batch": -1}, ["batch=-1", "a whole number >= 1"]),
        ({"epsilon": 8, "batch": 0.5}, ["batch=0.5"]),
        ({"epsilon": 8, "micro_batch": 0}, ["micro_batch=0"]),
        ({"epsilon": 8, "steps": 1.5}, ["steps=1.5"]),
        ({"epsilon": 8, "clipping": "ghost"}, ["clipping=ghost", "expected flat or automatic"]),
        ({"epsilon": 8, "norm": "batch"}, ["norm=batch", "frozen or group"]),
        ({"epsilon": 8, "accountant": "gdp"}, ["accountant=gdp", "pld or rdp"]),
        ({"epsilon": 8, "val_data": True}, ["val_data=True"]),
        ({"epsilon": 8, "engine": "fast"}, ["engine=fast"]),
        ({"epsilon": 8, "insecure_seed": -1}, ["insecure_seed=-1"]),
        ({"epsilon": 8, "trainable": "film+hea"}, ["trainable=film+hea", "whole_head"]),
        ({"epsilon": 8, "trainable": "all+head"}, ["trainable=all+head"]),
        ({"epsilon": 8, "trainable": "head+head"}, ["trainable=head+head"]),
        ({"epsilon": 8, "trainable": ""}, ["trainable="]),
        ({"epsilon": 8, "epsilom": 8}, ["epsilom=8", "did you mean epsilon"]),
    ],
)
def test_bad_privacy_arguments_are_named(given: dict[str, object], named: list[str]) -> None:
    for construct in (PrivacyArguments, lambda **values: split_arguments(values)):
        with pytest.raises(ConfigurationError) as caught:
            construct(**given)
        assert not [text for text in named if text not in str(caught.value)]


@pytest.mark.parametrize("trainable", ["all", "head", "film", "film+head", "whole_head+film"])
def test_known_trainable_parts(trainable: str) -> None:
    assert PrivacyArguments(epsilon=8, trainable=trainable).trainable == trainable


def test_a_run_without_noise_is_allowed_and_not_private() -> None:
    arguments = PrivacyArguments(noise_multiplier=0, max_grad_norm=1e9)
    assert not arguments.is_private
    assert not PrivacyArguments(epsilon=8, insecure_seed=0).is_private


# ---- the policy covers Ultralytics ----


def test_every_ultralytics_argument_is_judged(default_yaml: Path) -> None:
    defaults = yaml.safe_load(default_yaml.read_text())
    assert set(ULTRALYTICS) == set(defaults) | set(OUTSIDE_CONFIGURATION)
    recorded = {name: ULTRALYTICS[name].default for name in defaults}
    assert recorded == defaults


def test_what_ties_images_together_is_off_by_default() -> None:
    _, overrides = split_arguments({"epsilon": 8})
    off: dict[str, object] = {
        "mosaic": 0.0,
        "mixup": 0.0,
        "cutmix": 0.0,
        "copy_paste": 0.0,
        "close_mosaic": 0,
        "rect": False,
        "cls_pw": 0.0,
        "patience": 0,
        "time": None,
        "fraction": 1.0,
        "multi_scale": 0.0,
        "plots": False,
        "amp": False,
        "cache": False,
        "quantize": None,
        "distill_model": None,
        "split": "val",
        "compile": False,
    }
    assert {name: overrides.get(name, "absent") for name in off} == off
    assert overrides == neutral_values()


def test_ultralytics_accepts_what_we_hand_over(default_yaml: Path) -> None:
    from ultralytics.cfg import get_cfg

    chosen = {name: entry.default for name, entry in of_kind(Kind.ACCEPTED).items()}
    _, overrides = split_arguments({"epsilon": 8, **{k: v for k, v in chosen.items() if v}})
    settings = vars(get_cfg(str(default_yaml), overrides))
    assert {name: settings[name] for name in overrides} == overrides


@pytest.mark.parametrize(
    "name", [k for k, entry in of_kind(Kind.ACCEPTED).items() if entry.default is not None]
)
def test_accepted_arguments_take_ultralytics_default_value(name: str) -> None:
    default = ULTRALYTICS[name].default
    for spelling in (default, str(default)):
        _, overrides = split_arguments({"epsilon": 8, name: spelling})
        assert (type(overrides[name]), overrides[name]) == (type(default), default)


@pytest.mark.parametrize("name", of_kind(Kind.REFUSED))
def test_refused_arguments_say_why_and_what_instead(name: str) -> None:
    with pytest.raises(UnsafeArgumentError) as caught:
        split_arguments({"epsilon": 8, name: unsafe_value(name)})
    text = str(caught.value)
    assert text.startswith(f"{name}={unsafe_value(name)}: refused: ")
    entry = ULTRALYTICS[name]
    assert entry.why in text and entry.instead in text
    assert ". " not in entry.why and not entry.why.endswith(".")  # one sentence
    assert entry.instead.endswith((".", "…"))


@pytest.mark.parametrize("name", of_kind(Kind.REFUSED))
def test_refused_arguments_are_silent_at_harmless_values(name: str) -> None:
    for harmless in ULTRALYTICS[name].harmless:
        for spelling in (harmless, str(harmless)):
            _, overrides = split_arguments({"epsilon": 8, name: spelling})
            if name not in OUTSIDE_CONFIGURATION:
                assert overrides[name] == harmless


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("amp", "BF16", "bf16"),
        ("amp", "0", False),
        ("mosaic", "0", 0.0),
        ("cache", "1", True),
        ("cache", "RAM", "ram"),
        ("fraction", "1", 1.0),
    ],
)
def test_harmless_values_in_other_spellings(name: str, value: str, expected: object) -> None:
    _, overrides = split_arguments({"epsilon": 8, name: value})
    assert (type(overrides[name]), overrides[name]) == (type(expected), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [("amp", "fp16"), ("amp", "None"), ("mosaic", "1e-9"), ("mosaic", "nan"), ("mixup", [0])],
)
def test_unsafe_values_in_other_spellings(name: str, value: object) -> None:
    with pytest.raises(UnsafeArgumentError):
        split_arguments({"epsilon": 8, name: value})


@pytest.mark.parametrize("name", [*of_kind(Kind.FIXED), *of_kind(Kind.IRRELEVANT)])
def test_arguments_without_effect_are_refused_as_such(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        split_arguments({"epsilon": 8, name: "something"})
    assert not isinstance(caught.value, UnsafeArgumentError)
    assert str(caught.value).startswith(f"{name}=something: {ULTRALYTICS[name].why}\n")


@pytest.mark.parametrize("name", of_kind(Kind.IRRELEVANT))
def test_irrelevant_arguments_are_dropped_at_their_default(name: str) -> None:
    _, overrides = split_arguments({"epsilon": 8, name: ULTRALYTICS[name].default})
    assert name not in overrides


# ---- values ----


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr0", "abc"),
        ("lr0", True),
        ("lr0", math.nan),
        ("lr0", -0.1),
        ("imgsz", 0),
        ("imgsz", [640, 640]),
        ("imgsz", 160.5),
        ("fliplr", 2),
        ("box", -1),
        ("degrees", 181),
        ("workers", -1),
        ("seed", "x"),
        ("optimizer", "sgdd"),
        ("freeze", -1),
        ("freeze", "model.22"),
        ("freeze", []),
        ("scale", [2, 0.5]),
        ("scale", 1.5),
        ("classes", "dog"),
        ("device", ["0", None]),
        ("single_cls", 1),
        ("single_cls", "yes"),
        ("data", ["a.yaml", "b.yaml"]),
        ("data", ""),
        ("max_det", 0),
        ("project", False),
    ],
)
def test_wrong_values_are_named_with_what_is_expected(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        split_arguments({"epsilon": 8, name: value})
    assert str(caught.value).startswith(f"{name}=")
    assert ": expected " in str(caught.value)


def test_a_wrong_word_is_answered_with_one_that_works() -> None:
    for words, do in (
        ({"ema": 1}, "Give ema=0.9, for example."),
        ({"ema": 0}, "Give ema=0.9, for example."),
        ({"delta": 2}, "Give delta=1e-5, for example."),
        ({"optimizer": "MuSGD"}, "Give optimizer=auto, for example."),
    ):
        with pytest.raises(ConfigurationError, match=f"(?s).*{do}"):
            split_arguments({"epsilon": 8, **words})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lr0", "1e-3", 0.001),
        ("lr0", 1, 1.0),
        ("imgsz", "160.0", 160),
        ("freeze", "[0, 1]", [0, 1]),
        ("freeze", "0,1", [0, 1]),
        ("freeze", "10", 10),
        ("freeze", "[23.cv2,23.cv3]", ["23.cv2", "23.cv3"]),
        ("freeze", "23.cv2,0", ["23.cv2", 0]),
        ("freeze", (0, 1), [0, 1]),
        ("scale", "0.5,1.5", [0.5, 1.5]),
        ("device", "cpu", "cpu"),
        ("device", "cuda:0", "cuda:0"),
        ("device", [0], 0),
        ("device", "0,1", [0, 1]),
        ("device", "cuda:0,cuda:1", ["cuda:0", "cuda:1"]),
        ("device", "cpu,cpu", ["cpu", "cpu"]),
        ("device", "-1", -1),
        ("optimizer", "adamw", "AdamW"),
        ("name", "001", "001"),
        ("name", "2026_01", "2026_01"),
        ("name", 2026, "2026"),
        ("name", "1e5", "1e5"),
        ("project", Path("runs") / "mine", str(Path("runs") / "mine")),
        ("data", "C:\\images\\new.yaml", "C:\\images\\new.yaml"),
        ("data", "a=b.yaml", "a=b.yaml"),
        ("conf", "None", None),
        ("resume", "true", True),
        ("resume", "runs/private/train", "runs/private/train"),
        ("pretrained", "False", False),
    ],
)
def test_right_values_are_read(name: str, value: object, expected: object) -> None:
    _, overrides = split_arguments({"epsilon": 8, name: value})
    assert (type(overrides[name]), overrides[name]) == (type(expected), expected)


def test_numbers_of_other_libraries_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    privacy, overrides = split_arguments(
        {"epsilon": numpy.float32(8), "batch": numpy.int64(64), "lr0": numpy.float64(0.5)}
    )
    assert (type(privacy.epsilon), type(privacy.batch), type(overrides["lr0"])) == (
        float,
        int,
        float,
    )


def test_a_torch_device_is_a_device() -> None:
    torch = pytest.importorskip("torch")
    _, overrides = split_arguments({"epsilon": 8, "device": torch.device("cuda", 1)})
    assert overrides["device"] == "cuda:1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("True", True),
        ("NONE", None),
        (" 3 ", 3),
        ("1e-5", 1e-5),
        ("'a'", "a"),
        ("0,1", (0, 1)),
        ("[a,1]", ["a", 1]),
        ("cv2.COLORMAP_PARULA", "cv2.COLORMAP_PARULA"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("", ""),
    ],
)
def test_values_are_read_as_ultralytics_reads_them(text: str, value: object) -> None:
    assert parse_value(text) == value


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_reading_a_value_never_fails(text: str) -> None:
    parse_value(text)
    parse_value(f"[{text}]")


# ---- unknown arguments, many problems ----


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("epsilo", "epsilon"),
        ("Epsilon", "epsilon"),
        ("eps", "epsilon"),
        ("sigma", "noise_multiplier"),
        ("batch_size", "batch"),
        ("batch-size", "batch"),
        ("learning_rate", "lr0"),
        ("imgsize", "imgsz"),
        ("img_size", "imgsz"),
        ("max_grad_nrom", "max_grad_norm"),
        ("epoch", "epochs"),
        ("fliprl", "fliplr"),
        ("modle", "model"),
        ("dat", "data"),
        ("mosiac", "mosaic"),
        ("mixpu", "mixup"),
        ("wieght_decay", "weight_decay"),
    ],
)
def test_unknown_arguments_are_guessed(name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"unknown argument; did you mean {meant}\\?"):
        split_arguments({"epsilon": 8, name: 1})


def test_unguessable_arguments_point_to_help() -> None:
    with pytest.raises(ConfigurationError, match=r"zzzz=1: unknown argument\n.*train --help"):
        split_arguments({"epsilon": 8, "zzzz": 1})


def test_all_problems_are_in_one_error() -> None:
    wrong = {"mosaic": 1.0, "lr0": "abc", "imgz": 3, "batch": -1, "save_txt": True}
    with pytest.raises(UnsafeArgumentError) as caught:
        split_arguments(wrong, required=("data", "model"))
    first, *lines = str(caught.value).splitlines()
    assert first == "8 arguments cannot be used:"
    starts = [*wrong, "data", "model", "epsilon"]
    assert sorted(line.strip().split("=")[0].split(":")[0] for line in lines) == sorted(starts)


def test_required_arguments_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: d.yaml\nmodel: m.pt\n")
    split_arguments({"epsilon": 8, "cfg": str(file)}, required=("data", "model"))
    with pytest.raises(ConfigurationError, match="data: missing"):
        split_arguments({"epsilon": 8, "model": "m.pt"}, required=("data", "model"))


def test_control_characters_and_long_values_are_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        split_arguments({"epsilon": 8, "lr0": "\x1b[31m" + "x" * 500})
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 200


# ---- cfg ----


def test_arguments_from_a_file_lose_to_given_ones(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("epsilon: 3\nlr0: 1e-3\nimgsz: 320\nbatch: 64\n")
    privacy, overrides = split_arguments({"cfg": file, "imgsz": 160})
    assert (privacy.epsilon, privacy.batch) == (3, 64)
    assert (overrides["lr0"], overrides["imgsz"]) == (0.001, 160)
    assert "cfg" not in overrides


def test_a_copy_of_ultralytics_configuration_is_accepted(default_yaml: Path) -> None:
    privacy, overrides = split_arguments({"cfg": default_yaml, "epsilon": 8})
    assert overrides.items() >= neutral_values().items()
    assert (privacy.epochs, privacy.batch) == (100, 16)  # listed, and harmless


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("mosaic: 0.5\n", "mosaic=0.5: refused"),
        ("mosiac: 0.5\n", "did you mean mosaic"),
        ("a: [1\nb: 2\n", r"run.yaml:2: is not YAML"),
        ("- 1\n", "holds no `key: value` lines"),
        ("cfg: other.yaml\n", "names another file"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError, match=message):
        split_arguments({"cfg": str(file), "epsilon": 8})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml: cannot be read: No such file"):
        split_arguments({"cfg": str(tmp_path / "none.yaml"), "epsilon": 8})


@pytest.mark.parametrize("value", [True, ["a"], ""])
def test_cfg_is_a_path(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"cfg=.*: expected the path"):
        split_arguments({"cfg": value, "epsilon": 8})


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.touch()
    assert split_arguments({"cfg": file, "epsilon": 8}) == split_arguments({"epsilon": 8})


def test_flags_are_truth_values() -> None:
    assert is_flag("resume") and is_flag("exist_ok")
    assert not is_flag("data") and not is_flag("epsilon") and not is_flag("unknown")


def test_names_are_listed_once() -> None:
    assert len(known_names()) == len(set(known_names()))
    assert known_names()[0] == "epsilon"


@pytest.mark.parametrize(
    ("wrong", "do"),
    [
        ({"epsilon": "-1"}, "Give epsilon=8, for example."),
        ({"epsilon": "abc"}, "Give epsilon=8, for example."),
        ({"epsilon": 8, "batch": "many"}, "Give batch=100, for example."),
        ({"epsilon": 8, "lr0": "-1"}, "Give lr0=0.01, for example."),  # the default
    ],
)
def test_a_wrong_number_is_told_with_one_that_fits(wrong: dict[str, object], do: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        split_arguments(wrong)
    assert caught.value.do == do


def test_examples_are_of_their_kind() -> None:
    kinds = [*(entry.values for entry in ULTRALYTICS.values()), *map(kind_of, names())]
    given = [(kind, example_of(kind)) for kind in kinds if kind is not None and example_of(kind)]
    assert len(given) > 20
    for kind, example in given:
        check_value(kind, example)


@pytest.mark.parametrize(("given", "taken"), [(1, [1]), ("1", [1]), ("0,2", [0, 2]), ([2], [2])])
def test_one_class_is_a_list_of_one(given: object, taken: list[int]):
    _, settings = split_arguments({"epsilon": 8, "classes": given})
    assert settings["classes"] == taken
