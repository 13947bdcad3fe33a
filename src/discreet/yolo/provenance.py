"""Where weights come from, as far as their file says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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
    trained_on = named_data_set(model, checkpoint)
    if dataset is not None and trained_on is not None and is_of(trained_on, dataset):
        raise UnsafeArgumentError(
            "the weights were trained without privacy on this data set, and are not public",
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


def is_of(trained_on: str, dataset: DetectionDataset) -> bool:
    """Whether a data set file is that of these images, or names some of them."""
    path = Path(trained_on)
    if not path.exists():  # trained elsewhere: by its folder and name
        return path.parts[-2:] == dataset.yaml.parts[-2:]
    if path.resolve() == dataset.yaml.resolve():
        return True
    try:
        files = training_files(path)
    except DatasetError:
        return False
    return any(record.image.resolve() in files for record in dataset.train)
