"""Find the splits and classes of a classification data set: train/CLASS/image, val/CLASS/image.

Ultralytics 8.4's format (data/utils.py, check_cls_dataset), but nothing is looked up elsewhere,
downloaded, or split: a split that is missing is a problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from discreet.data._findings import Findings, printable
from discreet.data._nearest import hint
from discreet.data._reading import exists, is_folder, names_in, resolved
from discreet.data.description import NO_NETWORK, SUFFIXES, Description, is_remote
from discreet.errors import DatasetError

_SPELLINGS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}


def is_of_classes(data: Path) -> bool:
    """Whether this looks like a classification data set: train/CLASS, and no YAML file."""
    described = any(name.lower().endswith(SUFFIXES) for name in names_in(data))
    return not described and bool(_classes(data / "train"))


def find_folder(data: str | Path) -> Path:
    """The folder of a classification data set.

    Raises:
        DatasetError: There is none here.
    """
    where, do = printable(str(data)), "Give the folder that holds train/CLASS and val/CLASS."
    if is_remote(str(data)):
        raise DatasetError(NO_NETWORK, where=where, do=f"Download the data set first. {do}")
    folder = Path(data).absolute()
    if is_folder(folder):
        return folder
    what = (
        "not a folder" if exists(folder) else f"no such folder: looked for {folder}{hint(folder)}"
    )
    raise DatasetError(printable(what), where=where, do=do)


def read_classes(folder: Path, findings: Findings, *, splits: Sequence[str]) -> Description:
    """The classes, which are the folders of train in their order, and the splits that are needed.

    Args:
        folder: The data set's folder.
        findings: Takes problems.
        splits: The splits that are needed.
    """
    sources: dict[str, tuple[Path, ...]] = {}
    for split in splits:
        found = [folder / name for name in _SPELLINGS[split] if is_folder(folder / name)]
        if found:
            sources[split] = (resolved(found[0]),)
        else:
            findings.problem(folder, f"no folder {split}, with a folder of images for each class")
    names = _classes(folder / "train")
    if "train" in sources and len(names) < 2:
        findings.problem(folder / "train", "expected at least two folders, one for each class")
    return Description(names=names, sources=sources, points=None)


def _classes(train: Path) -> tuple[str, ...]:
    entries = (name for name in names_in(train) if not name.startswith("."))
    return tuple(name for name in entries if is_folder(train / name))
