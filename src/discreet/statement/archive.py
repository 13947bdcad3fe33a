"""What is inside a file of weights, read without running any of it.

`torch.save` writes a zip archive: a pickle, which is a program, and raw tensors. The archive has
to be as torch writes it, before any of it is unpacked; the pickle is followed by
`discreet.statement.pickles`, which imports and runs nothing.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from discreet.statement import pickles
from discreet.statement.pickles import follow

_MEMBER = re.compile(
    r"archive/(data\.pkl|byteorder|version|\.format_version|\.storage_alignment"
    r"|\.data/serialization_id|data/\d+)"
)
_MOST_DIRECTORY = 2_000_000
_END = 22  # bytes of the end of a directory
_END_64 = _END + 20 + 56  # the same behind its form for large files, and what leads to that
_TORCH_DATE = (1980, 0, 0, 0, 0, 0)
_LOCAL_HEADER = 30
_DESCRIPTORS = (0, 12, 16, 20, 24)  # bytes that may follow a member: its sizes and checksum


@dataclass(kw_only=True)
class WeightsFile:
    """What a file of weights holds.

    Attributes:
        content: The checkpoint, with `Inert` in the place of modules and tensors; None where it
            could not be read safely.
        texts: All text in it: strings of the pickle and names of the archive.
        faults: What stock weights do not have.
    """

    content: Any = None
    texts: list[str] = field(default_factory=list[str])
    faults: list[str] = field(default_factory=list[str])


def read_weights(path: Path) -> WeightsFile:
    """Read a file of weights. Never raises for what is in it: that is a fault."""
    found = WeightsFile()
    try:
        with path.open("rb") as stream:
            found.faults += _directory_faults(stream)
        if found.faults:
            return found
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            found.texts += archive.namelist()
            found.faults += _archive_faults(archive, stream)
            # Of a member that is compressed, a few bytes can become gigabytes.
            if found.faults:
                return found
            program = _read(archive, "archive/data.pkl")
            sizes = {
                info.filename.removeprefix("archive/data/"): info.file_size
                for info in archive.infolist()
                if info.filename.startswith("archive/data/")
            }
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        ValueError,
        EOFError,
        OverflowError,
        NotImplementedError,  # of a version or a kind of compression that nobody reads
        RuntimeError,  # encrypted
    ) as error:
        found.faults.append(f"not an archive of weights ({type(error).__name__})")
        return found
    followed = follow(program)
    found.texts += followed.texts
    found.faults += followed.faults
    if followed.faults:
        return found
    found.content = followed.content
    if followed.storages != sizes:
        found.faults.append("it holds tensors that the model does not use, or not all of them")
    return found


def _directory_faults(stream: BinaryIO) -> list[str]:
    """What is wrong with the directory, before `zipfile` reads it whole into memory."""
    length = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, length - _END_64))
    end = stream.read()
    if end[-_END:][:4] != b"PK\x05\x06":
        return ["it does not end as an archive of weights does, or with comments"]
    size = end[40:48] if end.startswith(b"PK\x06\x06") else end[-_END:][12:16]
    if int.from_bytes(size, "little") > _MOST_DIRECTORY:
        return ["the directory of its archive is longer than that of any model"]
    return []


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > pickles.MOST_BYTES:
        raise ValueError("too long")
    return archive.read(name)


def _archive_faults(archive: zipfile.ZipFile, stream: BinaryIO) -> list[str]:
    """What a zip of torch's does not have: names, dates, comments, bytes between members."""
    faults: list[str] = []
    members = sorted(archive.infolist(), key=lambda info: info.header_offset)
    names = [info.filename for info in members]
    if len(set(names)) < len(names):
        faults.append("two members of its archive have one name")
    faults += [f"its archive holds {name!r}" for name in names if not _MEMBER.fullmatch(name)]
    if any(info.date_time != _TORCH_DATE for info in members):
        faults.append("its archive holds the time when it was written")
    if archive.comment or any(info.comment or info.extra for info in members):
        faults.append("its archive holds comments")
    if any(info.compress_type or info.file_size != info.compress_size for info in members):
        faults.append("members of its archive are compressed")
    end = 0
    for info, following in zip(members, [*members[1:], None], strict=True):
        stream.seek(info.header_offset)
        header = stream.read(_LOCAL_HEADER)
        name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        stream.seek(name, io.SEEK_CUR)
        padding = stream.read(extra)
        stop = following.header_offset if following else _directory_start(archive)
        gap = stop - (info.header_offset + _LOCAL_HEADER + name + extra + info.file_size)
        if info.header_offset < end or gap not in _DESCRIPTORS or padding[4:].strip(b"Z"):
            faults.append("its archive holds bytes between its members")
            break
        end = stop
    if members and members[0].header_offset != 0:
        faults.append("bytes stand before its archive")
    return faults


def _directory_start(archive: zipfile.ZipFile) -> int:
    return int(getattr(archive, "start_dir"))  # noqa: B009 - not in the type stubs


def summary_inside(file: WeightsFile, key: str) -> object:
    """What the checkpoint has under a key; None where it has nothing."""
    return file.content.get(key) if isinstance(file.content, dict) else None


def architecture_name(file: WeightsFile) -> object:
    """The name of the model's architecture, which carries the claim; None where it has none."""
    model = summary_inside(file, "model")
    state = model.state if isinstance(model, pickles.Inert) else None
    description = state.get("yaml") if isinstance(state, dict) else None
    return description.get("yaml_file") if isinstance(description, dict) else None
