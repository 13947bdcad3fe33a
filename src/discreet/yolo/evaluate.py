"""Detection metrics of a model on the validation split, by Ultralytics' own validator."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn
from ultralytics.data import build_dataloader
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils import DEFAULT_CFG, IterableSimpleNamespace
from ultralytics.utils.nms import non_max_suppression

from discreet.data import load_dataset
from discreet.yolo import _compat
from discreet.yolo._compat import load_weights
from discreet.yolo.dataset import RecordDataset, describe

_BATCH = 16


class PatientValidator(DetectionValidator):
    """Ultralytics' validator, without a clock in its metrics.

    Stock non-maximum suppression gives up after 2 s and 0.05 s an image and drops the images that
    are left, so that a busy machine reports a worse detector.
    """

    def postprocess(self, preds: Any) -> list[dict[str, torch.Tensor]]:
        """Detections of each image, as Ultralytics gives them."""
        args = cast(Any, self.args)
        found: Any = non_max_suppression(
            preds,
            args.conf,
            args.iou,
            multi_label=True,
            agnostic=args.single_cls or args.agnostic_nms,
            max_det=args.max_det,
            end2end=cast(Any, self).end2end,
            max_time_img=float("inf"),
        )
        return [
            {"bboxes": x[:, :4], "conf": x[:, 4], "cls": x[:, 5], "extra": x[:, 6:]} for x in found
        ]


def evaluate(
    model: nn.Module,
    dataset: RecordDataset,
    *,
    args: Any,
    data: dict[str, Any],
    folder: Path,
    callbacks: dict[str, Any] | None = None,
) -> tuple[DetectionValidator, dict[str, float]]:
    """Validate as Ultralytics does at the end of an epoch.

    Args:
        model: The detector, on the device to use.
        dataset: The validation images.
        args: Ultralytics settings.
        data: Names and number of classes, as Ultralytics wants them.
        folder: Where the validator may write.
        callbacks: Ultralytics callbacks; they may publish what they see.

    Returns:
        The validator, and precision, recall, `map50` and `map50_95`, each in [0, 1].
    """
    args = copy(args)
    args.plots = False
    loader = build_dataloader(dataset, batch=_BATCH, workers=0, shuffle=False)
    with _compat.no_integrations():
        validator = PatientValidator(loader, save_dir=folder, args=args, _callbacks=callbacks)
    cast(Any, model).loss = lambda *_args, **_kwargs: (None, {})  # metrics only
    standin = SimpleNamespace(
        device=next(model.parameters()).device,
        data=data,
        amp=False,
        ema=SimpleNamespace(ema=model),
        loss_items={},
        stopper=SimpleNamespace(possible_stop=False),
        epoch=0,
        epochs=1,
        world_size=0,
        label_loss_items=lambda *_args, **_kwargs: {},
    )
    with torch.inference_mode():
        validator(trainer=cast(Any, standin))
    box = cast(Any, validator).metrics.box
    return validator, {
        "precision": float(box.mp),
        "recall": float(box.mr),
        "map50": float(box.map50),
        "map50_95": float(box.map),
    }


def evaluate_weights(
    weights: Path, data: Path, *, imgsz: int, split: str = "val"
) -> dict[str, float]:
    """Metrics of a weights file on a split of a data set.

    Args:
        weights: A detection model's `.pt` file.
        data: The data set file.
        imgsz: Side of the images in pixels.
        split: train, val or test.
    """
    found = load_dataset(data, splits=(split,))
    described = describe(found)
    args = IterableSimpleNamespace(**{**vars(DEFAULT_CFG), "imgsz": imgsz})
    dataset = RecordDataset(
        getattr(found, split), data=described, imgsz=imgsz, hyp=args, augment=False, rect=True
    )
    with TemporaryDirectory() as folder:
        model = load_weights(weights).eval()
        return evaluate(model, dataset, args=args, data=described, folder=Path(folder))[1]
