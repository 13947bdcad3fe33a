"""Ultralytics' validators, without a clock in their metrics.

Stock non-maximum suppression gives up after 2 s and 0.05 s an image and drops the images that
are left, so that a busy machine reports a worse detector.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.models.yolo.pose import PoseValidator
from ultralytics.models.yolo.segment import SegmentationValidator
from ultralytics.utils.nms import non_max_suppression


class PatientValidator(DetectionValidator):
    """Detection; the others below call its non-maximum suppression."""

    def postprocess(self, preds: Any) -> list[dict[str, torch.Tensor]]:
        """Detections of each image, as Ultralytics gives them."""
        args, me = cast(Any, self.args), cast(Any, self)
        found: Any = non_max_suppression(
            preds,
            args.conf,
            args.iou,
            nc=0 if args.task == "detect" else me.nc,
            multi_label=True,
            agnostic=args.single_cls or args.agnostic_nms,
            max_det=args.max_det,
            end2end=me.end2end,
            rotated=args.task == "obb",
            max_time_img=float("inf"),
        )
        return [
            {"bboxes": x[:, :4], "conf": x[:, 4], "cls": x[:, 5], "extra": x[:, 6:]} for x in found
        ]


class PatientSegmentationValidator(SegmentationValidator, PatientValidator):
    """Masks."""


class PatientPoseValidator(PoseValidator, PatientValidator):
    """Key points."""


class PatientOBBValidator(OBBValidator, PatientValidator):
    """Oriented boxes."""
