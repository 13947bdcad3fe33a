"""Read the data set file: where the splits are, and what the classes are called.

Ultralytics 8.4's format (data/utils.py, check_det_dataset), but nothing is looked up in its
settings or its package, nothing is downloaded and nothing is executed.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discreet.data._findings import Findings, examples, printable
from discreet.data._mapping import YamlMapping, read_mapping
from discreet.data._nearest import hint
from discreet.data._reading import exists, is_folder, names_in, resolved
from discreet.data.records import KeyPoints, TaskName
from discreet.errors import DatasetError

SUFFIXES = (".yaml", ".yml")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".txz", ".tbz2", ".ndjson")
SINGLE_CLASS_NAME = "item"  # what Ultralytics calls it (engine/trainer.py, get_dataset)
NO_NETWORK = "is an address, and nothing is fetched from the network at run time"


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the data set file says.

    Attributes:
        names: Class names; None where they could not be read.
        sources: Split to its folders and list files, absolute, links resolved, existing.
        points: What the key points of each label line are; None if none are declared.
    """

    names: tuple[str, ...] | None
    sources: dict[str, tuple[Path, ...]]
    points: KeyPoints | None


def is_remote(text: str) -> bool:
    """Whether a path is an address: `https://…`, `ul://…`, also after pathlib ate one slash."""
    scheme, colon, rest = text.partition(":")
    return bool(colon) and len(scheme) > 1 and scheme.isalnum() and rest.startswith("/")


def find_file(data: str | Path) -> Path:
    """The data set file that `data` means: the file itself, or the one YAML file in a folder.

    Raises:
        DatasetError: There is none here; nothing is looked up elsewhere.
    """
    where, do = printable(str(data)), "Give the path of the data set's YAML file."
    if is_remote(str(data)):
        raise DatasetError(NO_NETWORK, where=where, do=f"Download the data set first. {do}")
    path = Path(data).absolute()
    if is_folder(path):
        inside = [path / name for name in names_in(path)]
        found = [f for f in inside if f.suffix.lower() in SUFFIXES and not is_folder(f)]
        chosen = [f for f in found if f.stem == path.name] if len(found) > 1 else found
        if len(chosen) == 1:
            return chosen[0]
        if not found:
            do = f"{do} Folders of classes are for classification models, as yolov8n-cls.pt."
            raise DatasetError("a folder without a YAML file", where=where, do=do)
        names = examples([printable(f.name) for f in found])
        raise DatasetError(f"a folder with not one YAML file but: {names}", where=where, do=do)
    if not exists(path):
        raise DatasetError(
            printable(f"no such data set file: looked for {path}{hint(path, suffixes=SUFFIXES)}"),
            where=where,
            do=f"{do} Names that Ultralytics knows (coco8.yaml) are not looked up in its package,"
            " because that downloads the data.",
        )
    if path.suffix.lower() in ARCHIVES:
        raise DatasetError("an archive, not a YAML file", where=where, do=f"Unpack it. {do}")
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetError("not a YAML file (.yaml or .yml)", where=where, do=do)
    return path


def read_description(
    file: Path,
    findings: Findings,
    *,
    splits: Sequence[str],
    single_cls: bool,
    task: TaskName = "detect",
) -> Description:
    """Read the data set file; whatever is wrong goes to `findings`.

    Args:
        file: The YAML file.
        findings: Takes problems and notices.
        splits: The splits that are needed.
        single_cls: All classes are one, called "item".
        task: What the labels are for.
    """
    mapping = read_mapping(file, findings)
    if mapping is None:
        return Description(names=None, sources={}, points=None)
    values = mapping.values
    if "val" not in values and "validation" in values:
        values["val"] = values.pop("validation")
        mapping.lines["val"] = mapping.lines["validation"]
        findings.notice("the key 'validation' is read as 'val', as Ultralytics does")
    if values.get("download") is not None:
        findings.notice(
            "the key 'download' is ignored: nothing is downloaded, and no code in it is run"
        )
    if values.get("channels") not in (None, 3):
        mapping.problem(findings, "channels", "only channels: 3 is supported")
    names = _read_names(mapping, findings)
    return Description(
        names=(SINGLE_CLASS_NAME,) if single_cls and names is not None else names,
        sources=_read_sources(mapping, findings, splits),
        points=_read_points(mapping, findings, task),
    )


def _missing(mapping: YamlMapping, findings: Findings, key: str) -> None:
    similar = difflib.get_close_matches(key, [k for k in mapping.values if k != key], n=1)
    did_you_mean = f"; did you mean {similar[0]!r}?" if similar else ""
    mapping.problem(findings, key, f"the key {key!r} is missing or empty{did_you_mean}")


def _read_nc(mapping: YamlMapping, findings: Findings) -> int | None:
    value = mapping.values["nc"]
    try:
        if isinstance(value, bool) or float(value) != int(value) or int(value) < 1:
            raise ValueError
        return int(value)
    except (TypeError, ValueError, OverflowError):
        mapping.problem(findings, "nc", f"expected nc to be a whole number >= 1, got {value!r}")
        return None


def _read_names(mapping: YamlMapping, findings: Findings) -> tuple[str, ...] | None:
    names = mapping.values.get("names")
    nc = _read_nc(mapping, findings) if "nc" in mapping.values else None
    if names is None:
        if "nc" not in mapping.values:
            _missing(mapping, findings, "names")
        return None if nc is None else tuple(f"class_{i}" for i in range(nc))
    if not isinstance(names, list | dict) or not names:
        mapping.problem(findings, "names", "expected a list, or a mapping 0: name, 1: name, …")
        return None
    if isinstance(names, dict):
        try:
            by_number = {int(key): name for key, name in names.items()}
        except (TypeError, ValueError):
            by_number = {}
        if sorted(by_number) != list(range(len(names))):
            keys = examples([str(key) for key in names])
            what = f"the keys of names must be 0 to {len(names) - 1}, each once; got {keys}"
            mapping.problem(findings, "names", what)
            return None
        names = [by_number[number] for number in range(len(names))]
    if nc is not None and len(names) != nc:
        what = f"names has {len(names)} entries and nc is {nc}: they must match"
        mapping.problem(findings, "names", what)
        return None
    odd = [name for name in names if name is None or isinstance(name, bool | list | dict)]
    if odd:
        text = examples([str(name) for name in odd])
        findings.notice(f"class names that YAML does not read as text: {text}; put them in quotes")
    texts = tuple(str(name) for name in names)
    if repeated := sorted({text for text in texts if texts.count(text) > 1}):
        findings.notice(f"class names used more than once: {examples(repeated)}")
    return texts


def _read_points(mapping: YamlMapping, findings: Findings, task: TaskName) -> KeyPoints | None:
    shape = mapping.values.get("kpt_shape")
    if shape is None:
        if task == "pose":
            what = "poses need kpt_shape: [number of points, 2 or 3] beside names"
            mapping.problem(findings, "kpt_shape", what)
        return None
    if not _is_shape(shape, (2, 3) if task == "pose" else None):
        what = f"expected kpt_shape to be [number of points, 2 or 3], got {shape!r}"
        mapping.problem(findings, "kpt_shape", what)
        return None
    mirrored: object = mapping.values.get("flip_idx")
    if mirrored is None or task != "pose":
        if task == "pose":
            findings.notice("without flip_idx key points cannot be mirrored: flips are off")
        return KeyPoints(count=shape[0], columns=shape[1])
    if not isinstance(mirrored, list) or sorted(map(str, mirrored)) != sorted(
        map(str, range(shape[0]))
    ):
        what = f"expected flip_idx to hold each number from 0 to {shape[0] - 1} once"
        mapping.problem(findings, "flip_idx", f"{what}, got {mirrored!r}")
        return None
    return KeyPoints(count=shape[0], columns=shape[1], mirrored=tuple(map(int, mirrored)))


def _is_shape(value: Any, columns: tuple[int, ...] | None) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(number, int) and number > 0 for number in value)
        and (columns is None or value[1] in columns)
    )


def _read_root(mapping: YamlMapping, findings: Findings) -> Path | None:
    """The folder that the splits are relative to; None if it does not exist."""
    folder, value = findings.root, mapping.values.get("path")
    if value is None or value == "":
        return folder
    if not isinstance(value, str) or "\0" in value:
        mapping.problem(findings, "path", f"expected path to be text, got {value!r}")
        return None
    if is_remote(value):
        mapping.problem(findings, "path", f"{value} {NO_NETWORK}")
        return None
    root, from_here = resolved(folder / value), resolved(Path(value))
    if is_folder(root):
        if is_folder(from_here) and from_here != root:
            findings.notice(
                f"path: {value} is relative to the data set file ({root});"
                f" Ultralytics would take it from the current folder ({from_here})"
            )
        return root
    near = (
        f"; it is taken relative to the data set file, not to the current folder ({from_here})"
        if is_folder(from_here)
        else hint(root)
    )
    mapping.problem(findings, "path", f"no such folder: looked for {root}{near}")
    return None


def _read_sources(
    mapping: YamlMapping, findings: Findings, splits: Sequence[str]
) -> dict[str, tuple[Path, ...]]:
    root = _read_root(mapping, findings)
    sources: dict[str, tuple[Path, ...]] = {}
    for split in splits:
        value = mapping.values.get(split)
        entries: list[object] = value if isinstance(value, list) else [value]
        if not value or any(entry is None or entry == "" for entry in entries):
            _missing(mapping, findings, split)
            continue
        found = [_resolve(mapping, findings, split, root, entry) for entry in entries]
        sources[split] = tuple(path for path in found if path is not None)
    return sources


def _resolve(
    mapping: YamlMapping, findings: Findings, split: str, root: Path | None, entry: object
) -> Path | None:
    if not isinstance(entry, str) or "\0" in entry:
        mapping.problem(findings, split, f"expected {split} to be a path, got {entry!r}")
        return None
    if is_remote(entry):
        mapping.problem(findings, split, f"{entry} {NO_NETWORK}")
        return None
    if root is None and not Path(entry).is_absolute():
        return None  # the missing root is reported already
    path = resolved((root or findings.root) / entry)
    if exists(path):
        return path
    # Exports of some labelling tools say ../train/images from a folder that is not there.
    if entry.startswith("../") and not isinstance(mapping.values[split], list) and root:
        shorter = resolved(root / entry[3:])
        if exists(shorter):
            findings.notice(f"{split}: {entry} is read as {entry[3:]}, as Ultralytics does")
            return shorter
    what = f"no such folder or list: looked for {path}{hint(path)}"
    mapping.problem(findings, split, what)
    return None
