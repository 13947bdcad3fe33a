"""The tasks that Ultralytics trains, one row each: what differs between them, and where it lies.

Labels are read by `discreet.data`, which knows tasks by name; a training image's path is in
`dataset` (in `folders` for classification), its loss in `loss`. RT-DETR is a row of its own: the
task is detection, the model, its loss and its validator are others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from ultralytics.models.rtdetr import RTDETRValidator
from ultralytics.models.yolo.classify import ClassificationValidator
from ultralytics.nn.modules import (
    OBB,
    OBB26,
    Classify,
    Detect,
    Pose,
    Pose26,
    RTDETRDecoder,
    Segment,
    Segment26,
    v10Detect,
)
from ultralytics.nn.tasks import (
    ClassificationModel,
    DetectionModel,
    OBBModel,
    PoseModel,
    RTDETRDetectionModel,
    SegmentationModel,
)

from discreet.data import TaskName
from discreet.yolo.validators import (
    PatientOBBValidator,
    PatientPoseValidator,
    PatientSegmentationValidator,
    PatientValidator,
)

Metrics = Mapping[str, Callable[[Any], float]]

_BOXES: Metrics = {
    "precision": lambda found: found.box.mp,
    "recall": lambda found: found.box.mr,
    "map50": lambda found: found.box.map50,
    "map50_95": lambda found: found.box.map,
}
_MASKS: Metrics = {
    "mask_map50": lambda found: found.seg.map50,
    "mask_map50_95": lambda found: found.seg.map,
}
_POSES: Metrics = {
    "pose_map50": lambda found: found.pose.map50,
    "pose_map50_95": lambda found: found.pose.map,
}
_CLASSES: Metrics = {"top1": lambda found: found.top1, "top5": lambda found: found.top5}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a private run has to know of a task.

    Attributes:
        name: Ultralytics' name of it.
        model: Ultralytics' class of models.
        heads: Classes that their last layer may have; those derived from them, whose classes are
            texts, are others.
        validator: Ultralytics' validator, without what would hurt here.
        metrics: Published metrics by name, each in [0, 1], from the validator's.
        imgsz: Side of the images in pixels where none is asked for, as in Ultralytics.
        rectangular: Whether validation may letterbox images by their shapes.
        pictures: Whether the report can show what was found in validation images.
    """

    name: TaskName
    model: type[nn.Module]
    heads: tuple[type[nn.Module], ...]
    validator: type[Any]
    metrics: Metrics
    imgsz: int = 640
    rectangular: bool = True
    pictures: bool = True

    def build(self, source: nn.Module, *, names: int, kpt_shape: tuple[int, int] | None) -> Any:
        """A new model of the source's architecture, with random weights.

        Args:
            source: A model of this task.
            names: Number of classes.
            kpt_shape: Key points of an object, and numbers of each; None for the source's.
        """
        more = {} if kpt_shape is None else {"data_kpt_shape": list(kpt_shape)}
        configuration = dict(cast(Any, source).yaml)
        return cast(Any, self.model)(configuration, nc=names, verbose=False, **more)


DETECT = Task(
    name="detect",
    model=DetectionModel,
    heads=(Detect, v10Detect),
    validator=PatientValidator,
    metrics=_BOXES,
)
RTDETR = Task(
    name="detect",
    model=RTDETRDetectionModel,
    heads=(RTDETRDecoder,),
    validator=RTDETRValidator,
    metrics=_BOXES,
    rectangular=False,  # its anchors are those of one size
)
SEGMENT = Task(
    name="segment",
    model=SegmentationModel,
    heads=(Segment, Segment26),
    validator=PatientSegmentationValidator,
    metrics={**_BOXES, **_MASKS},
)
POSE = Task(
    name="pose",
    model=PoseModel,
    heads=(Pose, Pose26),
    validator=PatientPoseValidator,
    metrics={**_BOXES, **_POSES},
)
ORIENTED = Task(
    name="obb",
    model=OBBModel,
    heads=(OBB, OBB26),
    validator=PatientOBBValidator,
    metrics=_BOXES,
    pictures=False,  # the report draws upright boxes
)
CLASSIFY = Task(
    name="classify",
    model=ClassificationModel,
    heads=(Classify,),
    validator=ClassificationValidator,
    metrics=_CLASSES,
    imgsz=224,
    pictures=False,
)

TASKS = (DETECT, RTDETR, SEGMENT, POSE, ORIENTED, CLASSIFY)


def task_of_head(name: str) -> Task | None:
    """The task of an architecture, by the name of its last layer; None if it has none of these."""
    known = (task for task in TASKS if name in {head.__name__ for head in task.heads})
    return next(known, None)


def task_of(model: object) -> Task | None:
    """The task of a model, by its class and its last layer; None if it has none of these."""
    layers = getattr(model, "model", None)
    if not isinstance(layers, nn.Sequential) or not len(layers):
        return None
    for task in TASKS:
        if type(model) is task.model and type(layers[-1]) in task.heads:
            return task
    return None
