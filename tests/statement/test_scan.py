"""Planted leftovers: each is found, and a clean release has none."""

from __future__ import annotations

import base64
import copy
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
import yaml
from PIL import Image, PngImagePlugin
from torch import nn

from discreet.errors import ReleaseError
from discreet.statement.architecture import architecture_faults
from discreet.statement.passive import POLICY, report_activity
from discreet.statement.pictures import picture_faults
from discreet.statement.scan import PrivateWords, scan_release
from discreet.statement.schema import PrivacyRecord
from discreet.statement.sealing import seal
from discreet.statement.signing import ReleaseKey
from discreet.yolo.release import write_weights

Change = Callable[[dict[str, Any]], None]


def test_a_clean_release_is_clean(release: Path):
    words = PrivateWords.of(
        files=[Path("/mri/patient 7/scan_0042.png"), Path("/mri/IMG_0001.jpg")],
        folders=[Path("/mri/patient 7"), Path("/mri"), Path.cwd()],
    )
    assert scan_release(release, words=words) == []


@pytest.mark.parametrize(
    "name",
    ["train_batch0.jpg", "labels.jpg", "results.csv", "args.yaml", "best.pt", "labels.cache"],
)
def test_any_other_file_is_refused(release: Path, name: str):
    (release / name).write_bytes(b"x")
    assert scan_release(release) == [f"{name}: does not belong into a release"]


def test_folders_and_links_are_refused(release: Path, tmp_path: Path):
    (release / "crops").mkdir()
    (release / "report.html").unlink()
    (release / "report.html").symlink_to(tmp_path / "elsewhere")
    assert len(scan_release(release)) == 2


@pytest.fixture
def with_checkpoint(release: Path) -> Callable[[Change], list[str]]:
    """Faults after a change of the checkpoint, which runs nothing: it is this test's own."""

    def spoil(change: Change) -> list[str]:
        path = release / "weights.pt"
        content = torch.load(path, weights_only=False)
        change(content)
        with path.open("wb") as stream:
            torch.save(content, stream)
        return scan_release(release)

    return spoil


_CODE = "__import__('os').system('id') and None or torch.nn.SiLU()"


def _optimizer(content: dict[str, Any]) -> None:
    content["optimizer"] = {"state": {0: torch.zeros(3)}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: None, None),
        (_optimizer, "'optimizer' is not empty"),
        (lambda c: c.update(ema=c["model"]), "'ema' is not empty"),
        (lambda c: c.update(best_fitness=0.9), "best_fitness"),
        (lambda c: c.update(train_results={"train/box_loss": [1.0]}), "train_results"),
        (lambda c: c.update(git={"root": 1}), "git"),
        (lambda c: c["train_args"].update(seed=3), "settings"),
        (lambda c: c["train_args"].update(data="cells.yaml"), "settings"),
        (lambda c: setattr(c["model"], "seed", 7), "seed"),
        (lambda c: setattr(c["model"], "box_loss", 7.0), "box_loss"),
        (lambda c: setattr(c["model"], "criterion", nn.Identity()), "training loss"),
        (lambda c: setattr(c["model"], "origin", "/home/anna/scans/x"), "path"),
        (lambda c: setattr(c["model"], "origin", "C:\\Users\\anna\\x"), "path"),
        (lambda c: setattr(c["model"], "first", "IMG_0001.JPG"), "name of a file"),
        (lambda c: c["model"].yaml.update(activation=_CODE), "activation"),
        (lambda c: c["model"].yaml.update(activation="nn.ReLU()"), None),
        (lambda c: c["model"].yaml.update(activation="torch.nn.LeakyReLU(0.1)"), None),
        (lambda c: c["model"].yaml.update(note=1), "note"),
        (lambda c: c["model"].yaml.update(ch={"a": [_CODE]}), "numbers and words as ch"),
        (lambda c: c["model"].yaml["head"].append([-1, 1, "attempt_load", []]), "attempt_load"),
        (lambda c: c["model"].yaml["head"].append([-1, 1, "nn.Identity", [_CODE]]), "words"),
        (lambda c: c["model"].yaml["head"].append(7), "layer that is none"),
        (lambda c: setattr(c["model"], "yaml", None), "is not one"),
        (lambda c: delattr(c["model"], "yaml"), "no description"),
        (lambda c: c["train_args"].update(imgsz="x"), "settings"),
        (lambda c: c.update(date=c["model"]), "short text"),
        (lambda c: setattr(c["model"], "other", copy.deepcopy(c["model"])), "inside its model"),
        (lambda c: c["model"]._forward_hooks.update({1: nn.SiLU()}), "hooks"),
        (lambda c: c["model"].model[0].__dict__.update(forward=nn.SiLU()), "something else"),
        (lambda c: setattr(c["model"], "x", c["model"].model[0].forward_fuse), "method"),
        (lambda c: setattr(c["model"], "loader", Path("x")), "not in stock weights"),
        (lambda c: setattr(c["model"], "g", torch.Generator), "not in stock weights"),
    ],
)
def test_leftovers_of_training_in_the_weights_are_found(
    with_checkpoint: Callable[[Change], list[str]], change: Change, said: str | None
):
    faults = with_checkpoint(change)
    if said is None:
        assert faults == []
    else:
        assert any(said in fault for fault in faults), faults


def test_the_descriptions_of_all_stock_models_are_accepted():
    models = Path(ultralytics.__file__).parent / "cfg" / "models"
    files = sorted(models.rglob("*.yaml"))
    assert len(files) > 50
    for path in files:
        assert list(architecture_faults(yaml.safe_load(path.read_text()))) == [], path.name


WORDS = PrivateWords.of(
    files=[
        Path("/mri/ward_b/anna-1954.png"),
        Path("/mri/ward_b/two words.png"),
        Path("/mri/ward_b/000123.png"),
    ],
    folders=[Path("/mri/ward_b")],
    public=["platelet"],
)


@pytest.mark.parametrize(
    "text",
    ["anna-1954.png", "anna-1954", "Two Words.png", "x/mri/ward_b/y", "WARD_B", "000123.png"],
)
def test_words_of_the_run_are_found_wherever_they_are(
    release: Path, with_checkpoint: Callable[[Change], list[str]], text: str
):
    def name_class(content: dict[str, Any]) -> None:
        content["model"].names[0] = text

    with_checkpoint(name_class)
    assert any(
        fault.startswith("weights.pt: it holds") for fault in scan_release(release, words=WORDS)
    )
    (release / "PRIVACY.md").write_text(f"Trained on {text}.")
    assert any(fault.startswith("PRIVACY.md") for fault in scan_release(release, words=WORDS))


def test_the_name_of_user_and_machine_are_private(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("getpass.getuser", lambda: "Hildegard")
    monkeypatch.setattr("socket.gethostname", lambda: "tumour-board.hospital.example")
    words = PrivateWords.of(files=[], folders=[])
    assert words.found_in(["by hildegard"]) == ["hildegard"]
    assert words.found_in(["on tumour-board, at night"]) == ["tumour-board"]


def test_a_word_that_is_published_anyway_is_not_private():
    words = PrivateWords.of(
        files=[], folders=[Path("/runs/adamw"), Path("/runs/weights")], public=["AdamW"]
    )
    assert words.found_in(["optimizer: adamw", "weights"]) == []


@pytest.mark.parametrize("where", ["configuration", "check", "audit"])
@pytest.mark.parametrize("name", ["seed", "insecure_seed", "box_loss", "train_loss", "save_dir"])
def test_seeds_and_losses_in_the_record_are_found(release: Path, where: str, name: str):
    content = json.loads((release / "privacy.json").read_text())
    content[where] = {name: 3}
    (release / "privacy.json").write_text(json.dumps(content))
    assert scan_release(release) == [f"privacy.json: it holds {name!r}"]


def picture(kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 10)).save(stream, kind, **options)
    return stream.getvalue()


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "patient 7"
    return exif.tobytes()


def _text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Source", "patient 7")
    return info


def test_pictures_hold_pixels_and_no_more():
    assert picture_faults(picture("PNG")) == []
    assert picture_faults(picture("JPEG")) == []
    assert picture_faults(picture("PNG", pnginfo=_text()))
    assert picture_faults(picture("JPEG", exif=_exif()))
    assert picture_faults(picture("JPEG", comment=b"patient 7"))
    assert picture_faults(picture("PNG") + b"more")
    assert picture_faults(picture("JPEG") + b"more")
    assert picture_faults(picture("BMP"))
    assert picture_faults(b"")


HEAD = (
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n</head>\n'
)


@pytest.mark.parametrize(
    "text",
    [
        "<script>1</script>",
        "<SCRIPT>1</SCRIPT>",
        '<p onclick="x">',
        "<p onclick='x'>",
        "<svg onload=x>",
        '<a href="https://evil.example/">',
        '<a href="&#106;avascript:x">',
        '<image href="data:image/svg+xml;base64,AAAA"/>',
        '<meta http-equiv="refresh" content="0">',
        '<base href="#x">',
        '<iframe src="#x"></iframe>',
        "<style>@import 'x'",
        "<style>p { background: url(x) }</style>",
        "<!-- --><p>",
        '<p title="<">',
        "\x1b$B",
        "<form>",
    ],
)
def test_a_report_does_nothing_but_show(text: str):
    assert report_activity(f'{HEAD}<p class="a">one<br/><a href="#b">two</a></p>\n') == []
    assert report_activity(HEAD + text)


def test_a_report_begins_with_the_policy_that_holds_browsers_back():
    assert report_activity("<p>")
    assert report_activity(HEAD.replace("'none'", "*"))
    assert report_activity("<p>" + HEAD)
    assert report_activity(HEAD.replace("utf-8", "shift_jis"))


@pytest.mark.parametrize("text", ["." * 500_000, "x" * 500_000, "C:" * 250_000, "<a " * 200_000])
def test_texts_that_would_take_long_are_answered_soon(release: Path, text: str):
    (release / "PRIVACY.md").write_text(text)
    (release / "report.html").write_text(HEAD + text)
    began = time.process_time()
    scan_release(release)
    assert time.process_time() - began < 10


def test_pictures_in_the_report_are_looked_into(release: Path):
    def report(data: bytes) -> list[str]:
        text = base64.b64encode(data).decode()
        html = f'{HEAD}<img alt="x" src="data:image/png;base64,{text}"></html>'
        (release / "report.html").write_text(html)
        return scan_release(release)

    assert report(picture("PNG")) == []
    assert report(picture("PNG", pnginfo=_text()))


@pytest.mark.parametrize("text", ["<a href='file:///x'>", "see /tmp/x.log", "scan12.tif"])
def test_paths_in_the_report_are_found(release: Path, text: str):
    (release / "report.html").write_text(f"{HEAD}{text}</html>")
    assert scan_release(release)


def test_addresses_and_plain_slashes_are_no_paths(release: Path):
    text = "https://example.org/data/x and and/or 1/2 </html>"
    (release / "report.html").write_text(f"{HEAD}{text}")
    assert scan_release(release) == []


def test_a_release_with_a_leftover_is_not_published(
    tmp_path: Path, model: nn.Module, record: PrivacyRecord, key: ReleaseKey
):
    from discreet.yolo.release import publish

    folder, staging = tmp_path / "release", tmp_path / "staging"
    words = PrivateWords(names=frozenset({"platelet"}))
    with pytest.raises(ReleaseError, match="'platelet'"):
        publish(folder, staging=staging, released=model, record=record, key=key, words=words)
    assert not folder.exists()


def test_sealing_twice_is_sealing_once(
    tmp_path: Path, model: nn.Module, record: PrivacyRecord, key: ReleaseKey
):
    write_weights(tmp_path / "weights.pt", model, record=record)
    first = seal(tmp_path, record=record, key=key, words=PrivateWords())
    bytes_of = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert seal(tmp_path, record=first, key=key, words=PrivateWords()) == first
    assert bytes_of == {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
