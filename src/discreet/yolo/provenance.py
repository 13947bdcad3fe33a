"""Where weights come from, as far as their file says."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from torch import nn

from discreet.data import DetectionDataset, training_files
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
    if holds_any_of(Path(trained_on), dataset):
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


def holds_any_of(file: Path, dataset: DetectionDataset) -> bool:
    """Whether a data set file that is here is that of these images, or names one or a copy."""
    if not file.exists():
        return False
    if file.resolve() == dataset.yaml.resolve():
        return True
    try:
        theirs = training_files(file)
    except DatasetError:
        return False
    ours: defaultdict[int, list[Path]] = defaultdict(list)
    for record in dataset.train:
        ours[record.image.stat().st_size].append(record.image)
    return any(
        filecmp.cmp(one, other, shallow=False)
        for other in theirs
        if other.is_file()
        for one in ours.get(other.stat().st_size, ())
    )


def _called_alike(trained_on: str, ours: Path) -> bool:
    """Whether a file that is not here may be ours by its folder and name.

    A relative path began in a folder that is not known, so that one that is here may be another.
    """
    theirs = PureWindowsPath(trained_on)  # knows the separators of all systems
    if Path(trained_on).is_absolute() and Path(trained_on).exists():
        return False
    ends = [part for part in theirs.parts if part != ".."][-2:]
    return list(ours.resolve().parts[-len(ends) :]) == ends
