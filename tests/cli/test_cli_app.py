from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import discreet
from discreet.arguments.refused import REFUSED
from discreet.cli import main
from discreet.errors import DatasetError, UnsafeArgumentError
from discreet.terminal import Reporter

TRAIN = ["train", "data=d.yaml", "model=m.pt", "epsilon=8"]
FACTS = {"epsilon": 7.98, "delta": 1e-4, "release": "runs/private/train/release"}


class Result:
    def to_json(self) -> dict[str, Any]:
        return dict(FACTS)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the training itself; `api.calls` are the arguments it was called with."""
    module = ModuleType("discreet.api")
    calls: list[dict[str, object]] = []

    def train(given: Mapping[str, object], *, reporter: Reporter) -> Result:
        calls.append(dict(given))
        print("a library prints")
        reporter.epoch(epoch=1, epochs=1, epsilon=7.98, target=8.0)
        reporter.finish(epsilon=7.98, delta=1e-4, release="runs/private/train/release")
        return Result()

    module.train, module.calls = train, calls  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "discreet.api", module)
    monkeypatch.setattr(discreet, "api", module, raising=False)
    return module


def failing(api: ModuleType, error: Callable[[], BaseException]) -> None:
    def train(given: Mapping[str, object], *, reporter: Reporter) -> Result:
        raise error()

    api.train = train  # type: ignore[attr-defined]


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "discreet", *words],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **variables},
    )


# ---- train ----


@pytest.mark.parametrize(
    "words",
    [
        TRAIN,
        ["train", "--data", "d.yaml", "--model=m.pt", "--epsilon", "8"],
        ["train", "data", "=", "d.yaml", "--model", "m.pt", "epsilon=", "8"],
    ],
)
def test_train_hands_on_what_was_typed(
    api: ModuleType, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(words) == 0
    assert api.calls == [{"data": "d.yaml", "model": "m.pt", "epsilon": "8"}]
    captured = capsys.readouterr()
    assert "epoch 1/1  ε = 7.98 of 8.00\n" in captured.out
    assert "this training spent ε = 7.98 at δ = 1e-04\n" in captured.out
    assert captured.err == ""


def test_names_are_not_read_as_numbers(api: ModuleType) -> None:
    assert main([*TRAIN, "name=001"]) == 0
    assert api.calls[0]["name"] == "001"


def test_json_is_alone_on_standard_output(
    api: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == FACTS
    assert captured.out.count("\n") == 1
    assert "a library prints" in captured.err and "epoch 1/1" in captured.err


@pytest.mark.parametrize("switch", ["--json", "--json=true", "json=True", "json=true"])
@pytest.mark.parametrize("first", [True, False])
def test_spellings_of_the_json_switch(
    api: ModuleType, capsys: pytest.CaptureFixture[str], switch: str, first: bool
) -> None:
    assert main([switch, *TRAIN] if first else [*TRAIN, switch]) == 0
    assert json.loads(capsys.readouterr().out) == FACTS


def test_json_can_be_false(api: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "json=False"]) == 0
    assert "this training spent" in capsys.readouterr().out


@pytest.mark.parametrize("name", REFUSED)
def test_refused_arguments_end_with_status_2_before_anything_is_imported(
    api: ModuleType, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main([*TRAIN, f"{name}=0.123"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {name}=0.123: refused: {REFUSED[name].why}\n")
    assert captured.out == ""
    assert api.calls == []


def test_missing_arguments_are_named_together(
    api: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train"]) == 2
    error = capsys.readouterr().err
    assert [
        line for line in ("data: missing", "model: missing", "epsilon: missing") if line in error
    ]
    assert api.calls == []


@pytest.mark.parametrize("word", ["resume", "resume=runs/private/train", "--resume"])
def test_a_resumed_run_brings_its_own_arguments(api: ModuleType, word: str) -> None:
    assert main(["train", word]) == 0
    assert len(api.calls) == 1


@pytest.mark.parametrize("word", ["resume=False", "resume=none"])
def test_not_resuming_is_checked(api: ModuleType, word: str) -> None:
    assert main(["train", word]) == 2


def test_errors_are_json_too(api: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "mosaic=1", "--json"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "error": {
            "type": UnsafeArgumentError.__name__,
            "message": f"refused: {REFUSED['mosaic'].why}",
            "where": "mosaic=1",
            "do": REFUSED["mosaic"].instead,
        }
    }
    assert "mosaic=1" in captured.err


def test_problems_of_a_data_set_are_json_too(
    api: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = ["a.txt:1: class 9 of 3", "b.txt:2: not a number"]
    failing(api, lambda: DatasetError("2 problems", problems=problems, where="d.yaml", do="Mend."))
    assert main([*TRAIN, "--json"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"] == {
        "type": "DatasetError",
        "message": "2 problems",
        "where": "d.yaml",
        "do": "Mend.",
        "problems": problems,
    }
    assert "a.txt:1" in captured.err


def test_control_characters_in_errors_are_not_printed(
    api: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(api, lambda: DatasetError("bad", problems=["\x1b[2J.jpg"]))
    assert main(TRAIN) == 2
    assert "\x1b" not in capsys.readouterr().err


# ---- unexpected errors, interruption ----


def test_an_unexpected_error_leaves_its_traceback_in_a_file(
    api: ModuleType,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    failing(api, lambda: TypeError("of course"))
    assert main(TRAIN) == 1
    (file,) = tmp_path.iterdir()
    captured = capsys.readouterr()
    assert captured.err.startswith("unexpected error: TypeError: of course\n")
    assert str(file) in captured.err and "Traceback" not in captured.err
    assert "TypeError: of course" in file.read_text()


def test_an_unwritable_temporary_folder_is_no_second_error(
    api: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    failing(api, lambda: TypeError("of course"))
    assert main(TRAIN) == 1
    assert capsys.readouterr().err == "unexpected error: TypeError: of course\n"


@pytest.mark.parametrize("by_variable", [True, False])
@pytest.mark.parametrize("error", [TypeError("x"), DatasetError("x")])
def test_debug_prints_the_traceback(
    api: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    by_variable: bool,
) -> None:
    failing(api, lambda: error)
    monkeypatch.setenv("DISCREET_DEBUG", "1" if by_variable else "0")
    assert main(TRAIN if by_variable else [*TRAIN, "--debug"]) in (1, 2)
    assert "Traceback" in capsys.readouterr().err


def interrupted() -> KeyboardInterrupt:
    error = KeyboardInterrupt()
    error.add_note("resume with: discreet train resume=runs/private/train")
    return error


def test_an_interrupted_run_says_how_to_resume(
    api: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(api, interrupted)
    assert main([*TRAIN, "--json"]) == 130
    captured = capsys.readouterr()
    told = "resume with: discreet train resume=runs/private/train"
    assert captured.err == f"interrupted: {told}\n"
    assert json.loads(captured.out)["error"]["do"] == told


def test_sigterm_ends_as_the_keyboard_does(
    api: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def terminated() -> Exception:
        os.kill(os.getpid(), signal.SIGTERM)
        return AssertionError("it went on")

    failing(api, terminated)
    assert main(TRAIN) == 130
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupted_run_without_a_hint(
    api: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(api, KeyboardInterrupt)
    assert main(TRAIN) == 130
    assert capsys.readouterr().err == "interrupted\n"


# ---- modes ----


@pytest.mark.parametrize("as_json", [True, False])
def test_demo_hands_on_typed_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    import discreet.demo.run

    def run_demo(*, reporter: Reporter, **given: object) -> dict[str, object]:
        reporter.notice("drawing scenes")
        return dict(given)

    monkeypatch.setattr(discreet.demo.run, "run_demo", run_demo)
    assert main(["demo", "epsilon=4", "--project", "here", *["--json"] * as_json]) == 0
    captured = capsys.readouterr()
    if as_json:
        told = json.loads(captured.out)
        assert told == {"epsilon": 4.0, "seed": 0, "project": "here"}
    assert "drawing scenes\n" in (captured.err if as_json else captured.out)


@pytest.mark.parametrize("word", ["trian", "Train", "trainn"])
def test_unknown_modes_are_guessed(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main([word, "data=d.yaml"]) == 2
    assert capsys.readouterr().err == (
        f"error: {word}: unknown mode; did you mean train?\n"
        "  The modes are plan, check, train, distill, audit, verify, compare, demo, "
        "ledger, version, help.\n"
    )


def test_a_mode_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data=d.yaml", "train"]) == 2
    assert capsys.readouterr().err.startswith("error: data=d.yaml: a mode comes first\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "epsilom=8"], "did you mean epsilon"),
        (["demo", "epsilon=abc"], "abc"),
        (["demo", "epsilon=8", "data=d.yaml"], "data=d.yaml"),
        (["version", "foo"], "foo"),
        (["help", "trian"], "did you mean train"),
    ],
)
def test_wrong_words_after_other_modes(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main([*words, "--json"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert json.loads(captured.out)["error"]["type"] == "ConfigurationError"


@pytest.mark.parametrize("words", [["version"], ["--version"], ["-V"]])
def test_versions(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"discreet {discreet.__version__}\n") and "\ntorch " in out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["discreet"] == discreet.__version__


# ---- as a process ----


def test_json_is_alone_whoever_prints(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, types, discreet\n"
        "api = types.ModuleType('discreet.api')\n"
        "def train(given, *, reporter):\n"
        "    print('by print')\n"
        "    os.write(1, b'by descriptor\\n')\n"
        "    os.system('echo by a child')\n"
        "    reporter.notice('by reporter')\n"
        "    return types.SimpleNamespace(to_json=lambda: {'epsilon': float('inf'), 'p': api})\n"
        "api.train = train\n"
        "sys.modules['discreet.api'] = discreet.api = api\n"
    )
    paths = [str(tmp_path), *sys.path[1:]]
    done = run(*TRAIN, "--json", PYTHONPATH=os.pathsep.join(paths))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epsilon"] is None
    for source in ("print", "descriptor", "a child", "reporter"):
        assert f"by {source}\n" in done.stderr


def test_help_and_wrong_arguments_import_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from discreet.cli import main\n"
        "for words in (['--help'], ['train', '--help'], ['help', 'demo', '--json'],\n"
        "              ['version'], ['plan', '--help'], ['plan', 'n=4', 'batch=5'],\n"
        "              ['train', 'data=d', 'model=m', 'mosaic=1']):\n"
        "    main(words)\n"
        "heavy = {'torch', 'ultralytics', 'numpy', 'scipy', 'cv2', 'opacus'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "discreet", "help", "train"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_a_terminal_without_greek_letters() -> None:
    done = run("--help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr


def test_the_console_script_is_registered() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="discreet")
    assert script.load() is main
