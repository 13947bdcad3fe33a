from __future__ import annotations

import json

import pytest

from discreet.arguments import ULTRALYTICS, Kind, PrivacyArguments
from discreet.cli import main
from discreet.cli.helping import page
from discreet.cli.modes import MODES


@pytest.mark.parametrize(
    "words", [[], ["help"], ["--help"], ["-h"], *([mode, "--help"] for mode in MODES)]
)
def test_pages_fit_80_columns(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) > 3 and captured.err == ""
    assert [line for line in lines if len(line) > 80 or line != line.rstrip()] == []


@pytest.mark.parametrize("mode", MODES)
def test_three_ways_to_one_page(capsys: pytest.CaptureFixture[str], mode: str) -> None:
    pages: set[str] = set()
    for words in ([mode, "--help"], [mode, "-h"], ["help", mode], [mode, "foo=1", "--help"]):
        if mode == "help":
            words = ["help", "help"]
        assert main(words) == 0
        pages.add(capsys.readouterr().out)
    assert len(pages) == 1


def test_privacy_comes_first_and_nothing_is_left_out() -> None:
    text = page(MODES["train"])
    names = [
        line.split()[0] for line in text.splitlines() if line[:2] == "  " and line[2:3].strip()
    ]
    positions = [names.index(name) for name in PrivacyArguments.model_fields]
    assert positions == sorted(positions)
    for name, entry in ULTRALYTICS.items():
        if entry.kind is Kind.ACCEPTED:
            assert names.index(name) > positions[-1]
        elif entry.kind in (Kind.REFUSED, Kind.FIXED):
            assert f" {name}," in text or f" {name}\n" in text


def test_every_accepted_argument_has_a_help() -> None:
    accepted = [entry for entry in ULTRALYTICS.values() if entry.kind is Kind.ACCEPTED]
    assert all(entry.help for entry in accepted)
    assert all(field.description for field in PrivacyArguments.model_fields.values())


def test_help_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "modes": {name: mode.summary for name, mode in MODES.items()}
    }
    assert main(["train", "--help", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    defaults = {entry["name"]: entry["default"] for entry in told["arguments"]}
    assert defaults["max_grad_norm"] == 1.0 and defaults["lr0"] == 0.01
    assert "one image" in told["refused"]["mosaic"] and told["mode"] == "train"
