"""The sole exit: weights of stock classes only, and the record that speaks for them."""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import torch
import ultralytics
from torch import nn

from discreet.arguments import PUBLIC_SETTINGS
from discreet.statement.record import PrivacyRecord
from discreet.storage import make_folder, sync_folder, write_atomically, write_json

WEIGHTS = "weights.pt"
RECORD = "privacy.json"
# The only settings that travel inside the weights: what stock predict, val and export read.
_TRAVELS = ("imgsz", "task", "single_cls")


def releasable(model: nn.Module, *, args: Mapping[str, Any]) -> nn.Module:
    """A copy of the model in half precision, of stock classes, without a trace of the run.

    GroupNorm cannot stay in a convolution block's `.bn`, where `fuse()` expects a BatchNorm: it
    moves behind the convolution in `.conv`, as a plain `nn.Sequential`.

    Args:
        model: The trained model; left as it is.
        args: The run's settings; only those that inference reads are kept.
    """
    released = copy.deepcopy(model).cpu()
    for parameter in released.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    for module in released.modules():
        if isinstance(getattr(module, "bn", None), nn.GroupNorm):
            block = cast(Any, module)
            block.conv = nn.Sequential(block.conv, block.bn)
            del block.bn
            block.forward = block.forward_fuse
    kept = {key: args[key] for key in _TRAVELS if key in args}
    anything = cast(Any, released)
    anything.args = kept
    anything.task = "detect"
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


def write_weights(path: Path, released: nn.Module) -> str:
    """Write a checkpoint that stock `YOLO(...)` loads; return its sha256.

    Raises:
        StorageError: If the disk refuses.
    """
    checkpoint = {
        "model": released,
        "ema": None,
        "optimizer": None,
        "epoch": -1,
        "train_args": dict(cast(Any, released).args),
        "date": datetime.now(UTC).date().isoformat(),
        "version": ultralytics.__version__,
        "license": "AGPL-3.0-or-later",
    }
    # The archive's root folder is named after the file: a fixed name, not the temporary one.
    write_atomically(path, lambda stream: torch.save(checkpoint, stream))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def publish(folder: Path, *, staging: Path, fill: Callable[[Path], PrivacyRecord]) -> PrivacyRecord:
    """Make the release folder whole, or not at all.

    Args:
        folder: The release folder; replaced if it exists.
        staging: A folder of the run's own on the same disk, to build it in.
        fill: Writes the weights into the folder it is given and returns their record.
    """
    shutil.rmtree(staging, ignore_errors=True)
    make_folder(staging)
    record = fill(staging)
    write_json(staging / RECORD, record.model_dump(mode="json"))
    sync_folder(staging)
    shutil.rmtree(folder, ignore_errors=True)
    staging.replace(folder)
    sync_folder(folder.parent)
    return record
