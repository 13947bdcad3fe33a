"""Losses of single images, and what they give away about who was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT, IterableSimpleNamespace

from discreet.auditing.membership import MembershipCurve, membership_curve
from discreet.data import ImageRecord, load_dataset
from discreet.errors import ConfigurationError
from discreet.yolo._compat import load_weights
from discreet.yolo.batches import images_of
from discreet.yolo.dataset import ImageSettings, describe
from discreet.yolo.images import open_images
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.model import attach_settings, known_task, open_source
from discreet.yolo.release import WEIGHTS

_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class MembershipComparison:
    """The same attack on a plain model and on a private one.

    Attributes:
        stock: What the plain model gives away.
        private: What the private one gives away.
    """

    stock: MembershipCurve
    private: MembershipCurve

    def to_json(self) -> dict[str, Any]:
        """The same facts as one JSON object, with the points of both ROC curves."""
        return {"stock": self.stock.to_json(), "private": self.private.to_json()}


def image_losses(
    model: nn.Module,
    loss: Callable[[Any, dict[str, Any]], Tensor],
    records: Sequence[ImageRecord],
    *,
    data: dict[str, Any],
    imgsz: int,
) -> NDArray[np.float64]:
    """Training loss of each image as it is, without augmentation; float64 (len(records),).

    Args:
        model: The model; its mode is left as it is.
        loss: Its per-image loss.
        records: The images.
        data: Names and number of classes, as Ultralytics wants them.
        imgsz: Side in pixels; every image is letterboxed to this square.
    """
    settings = IterableSimpleNamespace(**{**vars(DEFAULT_CFG), "imgsz": imgsz})
    task = known_task(model)
    images = open_images(
        task, records, ImageSettings(data=data, imgsz=imgsz, hyp=settings, augment=False)
    )
    device = next(model.parameters()).device
    found: list[NDArray[np.float64]] = []
    with torch.no_grad():
        for start in range(0, len(records), _BATCH):
            stop = min(start + _BATCH, len(records))
            batch = images.collate_fn([images[i] for i in range(start, stop)])
            batch = images_of(batch, 0, stop - start)
            batch = {key: value.to(device) for key, value in batch.items()}
            if batch["img"].dtype == torch.uint8:
                batch["img"] = batch["img"].float() / 255
            terms = loss(model(batch["img"]), batch)
            found.append(terms.sum(1).double().cpu().numpy())
    return np.concatenate(found) if found else np.zeros(0)


def compare_membership(
    *, stock: Path, release: Path, data: Path, imgsz: int | None = None
) -> MembershipComparison:
    """Attack a plain model and a private one that were trained on the same images.

    Args:
        stock: Weights of the model that was trained without privacy.
        release: Release folder of the private run, or a weights file.
        data: The data set file: members are its training images, others its validation and test
            images.
        imgsz: Side of the images in pixels; by default what the private model was trained at.

    Raises:
        DiscreetError: A file is missing or wrong, or there are no images to compare with.
    """
    private = load_weights(release / WEIGHTS if release.is_dir() else release, argument="release")
    plain = load_weights(stock, argument="compare")
    dataset = load_dataset(data, task=known_task(open_source(private)).name)
    others = (*dataset.val, *dataset.test)
    args: Any = getattr(private, "args", {})
    settings: dict[str, Any] = args if isinstance(args, dict) else vars(args)
    side = imgsz or int(settings.get("imgsz", 640))
    curves: list[MembershipCurve] = []
    for model in (plain, private):
        names: Any = model.names
        if len(names) != dataset.nc:
            raise ConfigurationError(
                f"the model knows {len(names)} classes, the data set has {dataset.nc}",
                where=f"release={release}" if curves else f"compare={stock}",
                do="compare models that were trained on this data set",
            )
        attach_settings(model, DEFAULT_CFG_DICT)
        model.eval()
        loss = PerImageLoss(model)
        member, other = (
            image_losses(model, loss, records, data=describe(dataset), imgsz=side)
            for records in (dataset.train, others)
        )
        curves.append(membership_curve(member, other))
    return MembershipComparison(stock=curves[0], private=curves[1])
