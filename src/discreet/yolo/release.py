"""The sole exit: weights of stock classes only, and the record that speaks for them."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch
import ultralytics
from torch import nn

from discreet.arguments import PUBLIC_SETTINGS, PrivacyArguments
from discreet.data import DetectionDataset
from discreet.statement.archive import read_weights
from discreet.statement.checkpoint import TRAVELLING_SETTINGS
from discreet.statement.files import WEIGHTS
from discreet.statement.record import this_machine, this_software
from discreet.statement.report import ValidationFigures
from discreet.statement.scan import PrivateWords
from discreet.statement.schema import PrivacyRecord
from discreet.statement.sealing import seal
from discreet.statement.signing import ReleaseKey
from discreet.statement.summary import KEY, as_model_name, summarise
from discreet.storage import make_folder, sync_folder, write_atomically
from discreet.yolo.class_features import fold_classes
from discreet.yolo.low_rank import fold_low_rank
from discreet.yolo.model import known_task, set_norm

__all__ = [
    "WEIGHTS",
    "accelerator",
    "private_words",
    "public_settings",
    "publish",
    "releasable",
    "write_weights",
]


def releasable(model: nn.Module, *, args: Mapping[str, Any]) -> nn.Module:
    """A copy of the model in half precision, of stock classes, without a trace of the run.

    Standardised class features are folded into the convolution behind them, low-rank products into
    the one beside them. GroupNorm cannot stay in a convolution block's `.bn`, where `fuse()`
    expects a BatchNorm: it moves behind the convolution in `.conv`, as a plain `nn.Sequential`.

    Args:
        model: The trained model; left as it is.
        args: The run's settings; only those that inference reads are kept.
    """
    return _as_stock(copy.deepcopy(model).cpu(), args=args)


def _as_stock(released: nn.Module, *, args: Mapping[str, Any]) -> nn.Module:
    fold_classes(released)
    fold_low_rank(released)
    for parameter in released.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    for module in released.modules():
        if isinstance(getattr(module, "bn", None), nn.GroupNorm):
            block = cast(Any, module)
            block.conv = nn.Sequential(block.conv, block.bn)
            del block.bn
            block.forward = block.forward_fuse
    kept = {key: args[key] for key in TRAVELLING_SETTINGS if key in args}
    anything = cast(Any, released)
    anything.args = kept
    anything.task = known_task(released).name
    if "criterion" in dict(released.named_children()):
        del anything.criterion  # a module of the model itself, where the loss is one
    anything.criterion = None
    anything.yaml = {k: v for k, v in dict(anything.yaml).items() if k != "yaml_file"}
    for stray in ("pt_path", "loss_names", "class_weights"):
        if hasattr(anything, stray):
            delattr(anything, stray)
    # Training keeps channels last for speed; files keep PyTorch's plain order.
    released.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return released.half().eval()


def public_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that may be published: no path, no name, no seed, no machine."""
    return {key: settings[key] for key in PUBLIC_SETTINGS if key in settings}


def private_words(
    dataset: DetectionDataset,
    *,
    run: Path,
    privacy: PrivacyArguments | None = None,
    settings: Mapping[str, Any],
    public: Iterable[str],
    model: nn.Module,
    teacher: str | None = None,
) -> PrivateWords:
    """Words that must not be in the release: of the data set, the run and this machine.

    Args:
        dataset: The data set.
        run: The run's folder.
        privacy: Its privacy arguments, which say how images were grouped; None if they are public.
        settings: All other settings; those that are published tell nothing private.
        public: Other words that are published.
        model: What `releasable` returned.
        teacher: Where the teacher lies.
    """
    records = (*dataset.train, *dataset.val, *dataset.test)
    files = [path for record in records for path in (record.image, record.label) if path]
    public_data = privacy.public_data if privacy else None
    places = (settings["model"], teacher, public_data)
    sources = {Path(str(place)).resolve() for place in places if place}
    published = map(str, public_settings(settings).values())
    groups = privacy.groups if privacy else None
    pattern = privacy.group_regex if privacy else None
    return PrivateWords.of(
        files=[*files, dataset.yaml, *([Path(groups)] if groups else [])],
        folders={*(path.parent for path in files), dataset.yaml.parent, run, run.parent, *sources},
        public=[*dataset.names, *published, *public, *_words_of_kind(model)],
        keys={record.group for record in records if record.group is not None}
        | ({pattern} if pattern else set()),
    )


def _words_of_kind(model: nn.Module) -> list[str]:
    """All text in weights of the same architecture that nobody has trained, written here today."""
    fresh = known_task(model).build(model, names=len(cast(Any, model).names), kpt_shape=None)
    if any(isinstance(module, nn.GroupNorm) for module in model.modules()):
        set_norm(fresh, "group")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / WEIGHTS
        _save(_checkpoint(_as_stock(fresh, args={})), file)
        texts = read_weights(file).texts
    here = (this_software(), this_machine(accelerator=None))
    return [*texts, *(part.model_dump_json() for part in here)]


def accelerator(device: torch.device) -> str | None:
    """Model of the GPU, or None on the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return None if device.type == "cpu" else device.type


def write_weights(path: Path, released: nn.Module, *, record: PrivacyRecord) -> None:
    """Write a checkpoint that stock `YOLO(...)` loads, with the claim beside the model.

    Args:
        path: The file.
        released: What `releasable` returned. Takes the claim for its architecture's name, which
            stock exporters copy into the metadata of ONNX and other formats.
        record: The run's record.

    Raises:
        StorageError: If the disk refuses.
    """
    cast(Any, released).yaml["yaml_file"] = as_model_name(record)
    checkpoint = {**_checkpoint(released), KEY: summarise(record)}
    _save(checkpoint, path)


def _checkpoint(released: nn.Module) -> dict[str, Any]:
    """What stock `YOLO(...)` looks for in a file of weights."""
    return {
        "model": released,
        "ema": None,
        "optimizer": None,
        "epoch": -1,
        "train_args": dict(cast(Any, released).args),
        "date": datetime.now(UTC).date().isoformat(),
        "version": ultralytics.__version__,
        "license": "AGPL-3.0-or-later",
    }


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    # The archive's root folder is named after the file: a fixed name, not the temporary one.
    write_atomically(path, lambda stream: torch.save(checkpoint, stream))


def publish(
    folder: Path,
    *,
    staging: Path,
    released: nn.Module,
    record: PrivacyRecord,
    key: ReleaseKey | None,
    words: PrivateWords,
    validation: ValidationFigures | None = None,
) -> PrivacyRecord:
    """Make the release folder whole, or not at all.

    Args:
        folder: The release folder; replaced if it exists.
        staging: A folder of the run's own on the same disk, to build it in.
        released: What `releasable` returned.
        record: The run's record, before the weights are written.
        key: Signs the release; None leaves it unsigned.
        words: What must not be in it.
        validation: Figures on public validation images, for the report.

    Returns:
        The record as published.

    Raises:
        ReleaseError: Something private, or unknown, is in it; nothing is published.
        StorageError: The disk refuses.
    """
    shutil.rmtree(staging, ignore_errors=True)
    make_folder(staging)
    write_weights(staging / WEIGHTS, released, record=record)
    record = seal(staging, record=record, key=key, words=words, validation=validation)
    sync_folder(staging)
    shutil.rmtree(folder, ignore_errors=True)
    staging.replace(folder)
    sync_folder(folder.parent)
    return record
