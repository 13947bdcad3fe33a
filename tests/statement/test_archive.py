"""Weights are read without being run, and hold what stock weights hold."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from discreet.statement.archive import Inert, read_weights, summary_inside
from discreet.statement.schema import PrivacyRecord
from discreet.statement.summary import KEY, summarise


def save(path: Path, content: Any, **options: Any) -> Path:
    with path.open("wb") as stream:  # a stream: the archive's root is then `archive`
        torch.save(content, stream, **options)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The archive with members changed; None leaves one out."""
    with zipfile.ZipFile(path) as old:
        members = [(info, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w") as new:
        for info, data in members:
            kept = change(info.filename, data)
            if kept is not None:
                plain = zipfile.ZipInfo(info.filename)
                plain.date_time = (1980, 0, 0, 0, 0, 0)
                new.writestr(plain, kept)
    return path


def test_released_weights_are_stock_and_can_be_looked_into(release: Path, record: PrivacyRecord):
    found = read_weights(release / "weights.pt")
    assert found.faults == []
    assert isinstance(found.content["model"], Inert)
    assert found.content["model"].name == "ultralytics.nn.tasks DetectionModel"
    assert summary_inside(found, KEY) == summarise(record)


def test_rewriting_alone_is_no_fault(release: Path):
    path = rewritten(release / "weights.pt", lambda _, data: data)
    assert read_weights(path).faults == []


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.how = function, arguments

    def __reduce__(self) -> Any:
        return self.how


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (os.system, "touch {mark}"),
        (eval, "open('{mark}', 'w')"),
        (exec, "open('{mark}', 'w')"),
        (getattr, None),
        (io.open, "{mark}"),
        (torch.load, "{mark}"),
        (pickle.loads, b""),
    ],
)
def test_foreign_code_is_named_and_never_run(tmp_path: Path, function: Any, argument: Any):
    mark = tmp_path / "mark"
    given = argument.format(mark=mark) if isinstance(argument, str) else argument
    arguments = (OrderedDict(), "__class__") if function is getattr else (given,)
    found = read_weights(save(tmp_path / "w.pt", {"model": Evil(function, *arguments)}))
    assert found.faults
    assert not mark.exists()


@pytest.mark.parametrize("protocol", [0, 4, 5])
def test_other_protocols_are_refused(tmp_path: Path, protocol: int):
    path = save(tmp_path / "w.pt", {"model": OrderedDict(a=1)}, pickle_protocol=protocol)
    assert any("instruction" in fault for fault in read_weights(path).faults)


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'echo'\ntR.",
        b"\x80\x02cos\nsystem\nq\x00.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02\x82\x01.",  # the extension registry
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nR.",  # nothing to call it with
        b"\x80\x02N",
        b"\x80\x02N.\x00",
        b"",
        b"nonsense",
    ],
)
def test_pickles_that_are_not_torchs_are_faults(release: Path, program: bytes):
    path = rewritten(
        release / "weights.pt",
        lambda name, data: program if name == "archive/data.pkl" else data,
    )
    assert read_weights(path).faults


def test_what_is_no_archive_is_a_fault(tmp_path: Path):
    for content in (b"", b"PK", b"\x80\x02N."):
        path = tmp_path / "w.pt"
        path.write_bytes(content)
        assert read_weights(path).faults
    torch.save({"model": 1}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert read_weights(tmp_path / "old.pt").faults


def test_the_name_of_the_file_in_the_archive_is_a_fault(tmp_path: Path):
    torch.save({"model": torch.zeros(3)}, tmp_path / "patient_17.pt")
    assert any("patient_17" in fault for fault in read_weights(tmp_path / "patient_17.pt").faults)


def add(path: Path, name: str, data: bytes, date: tuple[int, ...] = (1980, 0, 0, 0, 0, 0)) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(name)
        info.date_time = date  # type: ignore[assignment]
        archive.writestr(info, data)


def test_stowaways_in_the_archive_are_faults(release: Path, tmp_path: Path):
    weights = (release / "weights.pt").read_bytes()

    def fault_of(spoil: Callable[[Path], None], said: str) -> None:
        path = tmp_path / "spoiled.pt"
        path.write_bytes(weights)
        spoil(path)
        assert any(said in fault for fault in read_weights(path).faults), said

    fault_of(lambda p: add(p, "archive/images.bin", b"x"), "images.bin")
    fault_of(lambda p: add(p, "archive/data/9999", b"x"), "tensors that the model does not use")
    fault_of(lambda p: add(p, "archive/data/9999", b"x", (2026, 1, 2, 3, 4, 6)), "time")
    fault_of(lambda p: p.write_bytes(b"hidden" + weights), "")

    def comment(path: Path) -> None:
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = b"hello"

    fault_of(comment, "comments")

    def between(path: Path) -> None:  # bytes before the directory, which moves back
        with zipfile.ZipFile(path) as archive:
            start = archive.start_dir
        end = bytearray(weights[start:])
        offset = end.rindex(b"PK\x05\x06") + 16
        end[offset : offset + 4] = (start + 64).to_bytes(4, "little")
        path.write_bytes(weights[:start] + b"s" * 64 + bytes(end))

    fault_of(between, "between its members")
