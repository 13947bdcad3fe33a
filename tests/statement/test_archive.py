"""Weights are read without being run, and hold what stock weights hold."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from discreet.statement.archive import read_weights, summary_inside
from discreet.statement.pickles import Inert
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


def pickled(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """The archive with its pickle changed."""
    return rewritten(path, lambda n, data: change(data) if n == "archive/data.pkl" else data)


def added(path: Path, value: bytes) -> Path:
    """The archive with one more entry in the checkpoint, as instructions."""
    key = b"X\x04\0\0\0note"
    return pickled(path, lambda data: data[:-1] + key + value + b"s.")


_COMMAND = "__import__('os').system('touch {mark}') and None or torch.nn.SiLU()"


def test_a_stock_class_that_is_given_arguments_is_refused(tmp_path: Path):
    """A detector's constructor evaluates its description: such weights run code when loaded."""
    mark = tmp_path / "mark"
    description = {
        "activation": _COMMAND.format(mark=mark), "nc": 1, "scales": {}, "head": [],
        "backbone": [[-1, 1, "Conv", [16, 3, 2]]],
    }  # fmt: skip
    from ultralytics.nn.tasks import DetectionModel

    path = save(tmp_path / "w.pt", {"date": Evil(DetectionModel, description)})
    found = read_weights(path)
    assert found.faults == ["its pickle calls what stock weights do not call"]
    assert found.content is None
    assert not mark.exists()
    with contextlib.suppress(Exception):  # it is no model, but that comes too late
        torch.load(path, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize(
    "value",
    [
        b"cultralytics.nn.modules.conv\nConv\n",  # the class itself
        b"cultralytics.nn.modules.conv\nConv\n(K\x03K\x10t\x81",  # arguments for __new__
        b"cultralytics.nn.modules.conv\nConv\n)R",
        b"cultralytics.nn.tasks\nPath\n)\x81",
        b"ccollections\nOrderedDict\n(}tR",
        b"ctorch\nSize\n(X\x01\0\0\0atR",
        b"ctorch\nFloatStorage\n)\x81",
        b"ctorch.nn.modules.activation\nSiLU\n)\x81}b}b",  # a state set twice
        b"ctorch.nn.modules.activation\nSiLU\n)\x81Nb",
        b"ccollections\nOrderedDict\n)R}b",
        b"c__builtin__\ngetattr\n}X\x0c\0\0\0forward_fuse\x86R",
        b"}Ns",
        b"})Ns",  # a tuple as key
        b"}(K\x01NK\x01Nu",  # a key twice
        b"NN",  # left behind
        b"(N",
        b"h\xff",  # what was never put there
    ],
)
def test_what_stock_pickles_do_not_do_is_refused(release: Path, value: bytes):
    assert read_weights(added(release / "weights.pt", b"N")).faults == []
    assert read_weights(added(release / "weights.pt", value)).faults


def _nested_tuples() -> bytes:
    """A key whose hash takes twice as long with each level."""
    value = b"}("
    for i in range(45):
        index = struct.pack("<I", 1_000_000 + i)
        value += b"r" + index + b"j" + index + b"\x86" if i else b")"
    return value + b"Nu"


@pytest.mark.parametrize(
    "value",
    [
        _nested_tuples(),
        b"Nr\xff\xff\xff\x0f",  # an index for which pickle reserves gigabytes
        b"(" * 500_000,
        b"]" * 500_000 + b"a" * 499_999,
    ],
)
def test_weights_that_would_take_long_are_answered_soon(release: Path, value: bytes):
    path = added(release / "weights.pt", value)
    began = time.process_time()
    read_weights(path)
    assert time.process_time() - began < 15


def test_a_pickle_that_is_too_long_is_not_followed(release: Path):
    path = pickled(release / "weights.pt", lambda data: data + bytes(5_000_000))
    assert read_weights(path).faults


def test_nothing_that_is_compressed_is_unpacked(release: Path, tmp_path: Path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo("archive/data.pkl", (1980, 0, 0, 0, 0, 0))
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, bytes(3_000_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
        assert "members of its archive are compressed" in read_weights(path).faults


@pytest.mark.parametrize(("at", "value"), [(6, 99), (8, 1), (10, 8), (10, 14)])
def test_archives_that_nobody_can_read_are_faults(release: Path, at: int, value: int):
    """An unknown version, an encrypted member, damaged compression: each raises its own error."""
    path = release / "weights.pt"
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    data[start + at] = value
    path.write_bytes(bytes(data))
    assert read_weights(path).faults


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

    fault_of(comment, "with comments")

    def between(path: Path) -> None:  # bytes before the directory, which moves back
        with zipfile.ZipFile(path) as archive:
            start = archive.start_dir
        end = bytearray(weights[start:])
        offset = end.rindex(b"PK\x05\x06") + 16
        end[offset : offset + 4] = (start + 64).to_bytes(4, "little")
        path.write_bytes(weights[:start] + b"s" * 64 + bytes(end))

    fault_of(between, "between its members")
