"""Where weights come from, as far as their file says."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from torch import nn

from discreet.data import DetectionDataset, ImageRecord, training_files
from discreet.errors import DatasetError, UnsafeArgumentError
from discreet.statement.summary import KEY
from discreet.yolo._compat import load_checkpoint


def require_public_start(
    weights: Path, *, argument: str, dataset: DetectionDataset | None = None
) -> None:
    """Refuse to start from weights that private images are in: the record calls them public.

    Args:
        weights: The file, as `load_checkpoint` takes it.
        argument: What it was given as.
        dataset: The private images of the run; None where it sees none.

    Raises:
        UnsafeArgumentError: They were trained on private images, or on this data set.
    """
    model, checkpoint = load_checkpoint(weights, argument=argument)
    where = f"{argument}={weights}"
    if KEY in checkpoint:
        raise UnsafeArgumentError(
            "the weights were trained on private images, and are not public",
            where=where,
            do="start from public weights, or from an architecture such as yolov8n.yaml; "
            "discreet distill teacher=RELEASE takes what a private model knows, and counts what "
            "it has spent",
        )
    require_elsewhere(
        named_data_set(model, checkpoint),
        dataset,
        what="the weights",
        where=where,
        do="start from weights that were trained on public images, such as yolov8n.pt",
    )


def named_data_set(model: nn.Module, checkpoint: Mapping[str, Any]) -> str | None:
    """The data set file that Ultralytics noted in the checkpoint."""
    for settings in (checkpoint.get("train_args"), getattr(model, "args", None)):
        named = settings.get("data") if isinstance(settings, Mapping) else None
        if named:
            return str(named)
    return None


def require_elsewhere(
    trained_on: str | None, dataset: DetectionDataset | None, *, what: str, where: str, do: str
) -> None:
    """Refuse what was trained on these images, as far as its file and this machine tell.

    Args:
        trained_on: The data set file that it names, as `named_data_set` finds it.
        dataset: The private images; None where there are none.
        what: What was trained.
        where: The argument that gives it.
        do: What to use in its place.

    Raises:
        UnsafeArgumentError: It was, or may have been: a name alone fits more than one data set.
    """
    if trained_on is None or dataset is None:
        return
    file = Path(trained_on)
    ours = _is_same_file(file, dataset.yaml)
    # A relative path began in a folder that is not known, so that one that is here may be another.
    if (ours and file.is_absolute()) or (not ours and names_any_of(file, dataset.train)):
        raise UnsafeArgumentError(
            f"{what} trained without privacy on this data set, and would pass it on",
            where=where,
            do=do,
        )
    if _called_alike(trained_on, dataset.yaml):
        raise UnsafeArgumentError(
            f"{what} trained without privacy on {trained_on}, which may be this data set: it is "
            "called so",
            where=where,
            do=f"{do}; if they are other images, give this data set's file another name than "
            f"{dataset.yaml.name}",
        )


def _is_here(file: Path) -> bool:
    """Whether there is such a file, as far as one may look."""
    try:
        return file.exists()
    except (OSError, ValueError):
        return False


def _is_same_file(one: Path, other: Path) -> bool:
    """Whether both lead to one file that is here."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # it is not here, or may not be looked at
        return False


def names_any_of(file: Path, records: Sequence[ImageRecord]) -> bool:
    """Whether a data set file that is here has some of these images in training, or a copy.

    Args:
        file: The data set file; nothing is known of one that is not here or cannot be read.
        records: The images.
    """
    try:
        theirs = training_files(file) if _is_here(file) else ()
    except (DatasetError, OSError):
        return False
    ours: defaultdict[int, list[Path]] = defaultdict(list)
    for record in records:
        ours[record.image.stat().st_size].append(record.image)
    return any(_is_copy(one, other) for other in theirs for one in ours.get(_size(other), ()))


def _is_copy(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes; a file that cannot be read is no copy."""
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _called_alike(trained_on: str, ours: Path) -> bool:
    """Whether a file may be ours by its folder and name, as far as it names them."""
    file = Path(trained_on)
    if file.is_absolute() and _is_here(file):
        return False  # and it is another one
    ends: list[str] = []
    for part in PureWindowsPath(trained_on).parts:  # knows the separators of all systems
        if part != "..":
            ends.append(part)
        elif ends:
            ends.pop()
    ends = ends[-2:]
    spellings = (ours.absolute(), ours.resolve())
    return any(list(spelt.parts[-len(ends) :]) == ends for spelt in spellings) if ends else False
