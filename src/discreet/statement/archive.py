"""What is inside a file of weights, read without running any of it.

`torch.save` writes a zip archive: a pickle, which is a program, and raw tensors. Here the pickle
is read twice. Its instructions are compared with those that stock weights need, and each class
or function that it names with a list of stock ones. Only then is it carried out with stand-ins
that hold what they are given and do nothing; nothing is imported, so none of it can run.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

# All that torch.save writes for tensors, containers and modules (pickle protocol 2).
_OPCODES = frozenset(
    """
    PROTO STOP MARK GLOBAL REDUCE NEWOBJ BUILD BINPERSID BINPUT LONG_BINPUT BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS
    """.split()  # noqa: SIM905 - four lines instead of thirty
)
_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "__builtin__ set",
        "__builtin__ getattr",  # a bound method; only of the names below
        "torch Size",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
    }
)
_METHODS = frozenset({"forward_fuse", "forward_split"})
_MODULE_CLASS = re.compile(
    r"(torch\.nn\.modules\.\w+|ultralytics\.nn\.modules\.\w+|ultralytics\.nn\.tasks)"
    r" ([A-Z]\w*|v10Detect)"
)
_STORAGE = re.compile(r"torch (Half|Float|Double|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage")
_BYTES = {
    "Char": 1, "Byte": 1, "Bool": 1, "Half": 2, "BFloat16": 2, "Short": 2,
    "Float": 4, "Int": 4, "Double": 8, "Long": 8,
}  # fmt: skip
_MEMBER = re.compile(
    r"archive/(data\.pkl|byteorder|version|\.format_version|\.storage_alignment"
    r"|\.data/serialization_id|data/\d+)"
)
_TORCH_DATE = (1980, 0, 0, 0, 0, 0)
_LOCAL_HEADER = 30
_DESCRIPTORS = (0, 12, 16, 20, 24)  # bytes that may follow a member: its sizes and checksum


class Inert:
    """Stands for an object of a class or function that is named, never imported."""

    name = ""

    def __new__(cls, *args: Any) -> Inert:
        """Hold the arguments."""
        self = super().__new__(cls)
        self.args, self.state, self.items = args, None, []
        return self

    def __init__(self, *args: Any) -> None:
        pass

    args: tuple[Any, ...]
    state: Any
    items: list[tuple[Any, Any]]

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))


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
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            found.texts += archive.namelist()
            found.faults += _archive_faults(archive, stream)
            program = archive.read("archive/data.pkl")
            sizes = {
                info.filename.removeprefix("archive/data/"): info.file_size
                for info in archive.infolist()
                if info.filename.startswith("archive/data/")
            }
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        found.faults.append(f"not an archive of weights ({type(error).__name__})")
        return found
    texts, faults = _scan(program)
    found.texts += texts
    found.faults += faults
    if faults:
        return found  # not even with stand-ins
    reader = _Reader(program)
    try:
        found.content = reader.load()
    except Exception as error:  # a program that is no program
        found.faults.append(f"its pickle cannot be followed ({type(error).__name__})")
        return found
    found.faults += reader.faults
    if reader.storages != sizes:
        found.faults.append("it holds tensors that the model does not use, or not all of them")
    return found


def _scan(program: bytes) -> tuple[list[str], list[str]]:
    """Texts and faults of a pickle, by its instructions alone."""
    texts: list[str] = []
    faults: list[str] = []
    end = -1
    try:
        for opcode, argument, position in pickletools.genops(program):
            if opcode.name not in _OPCODES:
                faults.append(f"its pickle has the instruction {opcode.name}")
            elif opcode.name == "GLOBAL" and not _is_stock(str(argument)):
                faults.append(f"its pickle names {argument}, which is not in stock weights")
            if isinstance(argument, str):
                texts.append(argument)
            end = position
    except Exception as error:  # pickletools raises what its decoders raise
        faults.append(f"its pickle cannot be read ({type(error).__name__})")
    if not faults and end != len(program) - 1:
        faults.append("bytes follow its pickle")
    return texts, list(dict.fromkeys(faults))


def _is_stock(name: str) -> bool:
    return bool(name in _GLOBALS or _MODULE_CLASS.fullmatch(name) or _STORAGE.fullmatch(name))


class _Reader(pickle.Unpickler):
    """Carries a pickle out with stand-ins."""

    def __init__(self, program: bytes) -> None:
        super().__init__(io.BytesIO(program), fix_imports=False)
        self.storages: dict[str, int] = {}
        self.faults: list[str] = []

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name} {global_name}"
        if not _is_stock(name):  # the scan has refused it before
            raise pickle.UnpicklingError(name)
        if name == "__builtin__ getattr":
            return self._method
        return type("Stand", (Inert,), {"name": name})

    def _method(self, owner: object, method: object) -> Inert:
        if not isinstance(owner, Inert) or method not in _METHODS:
            self.faults.append(f"its pickle asks for the attribute {method!r}")
        return Inert(owner, method)

    def persistent_load(self, pid: Any, /) -> Any:
        try:
            kind, storage, key, location, count = pid
            size = _BYTES[storage.name.removeprefix("torch ").removesuffix("Storage")] * count
            if kind != "storage" or location != "cpu":
                raise ValueError(location)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise pickle.UnpicklingError("not a tensor of torch's") from error
        self.storages[str(key)] = size
        return Inert(key)


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
