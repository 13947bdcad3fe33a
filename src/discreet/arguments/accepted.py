"""Ultralytics arguments that a private run accepts under their own names.

Each is a public constant or a random function of one image, so none ties images together and
none depends on private data. An argument listed here must take effect in training.
"""

from __future__ import annotations

from collections.abc import Mapping

from discreet.arguments.policy import Argument, Kind, accepted
from discreet.arguments.values import (
    Angle,
    CheckpointPeriod,
    Classes,
    Count,
    CountOrZero,
    Device,
    Flag,
    Fraction,
    Freeze,
    Gain,
    Optimizer,
    Path,
    PathOrFlag,
    Pixels,
    Policy,
    Rate,
    Scale,
    Text,
)

# Section titles are those of help.
ACCEPTED: Mapping[str, Mapping[str, Argument]] = {
    "Data, model and run": {
        "data": accepted(None, Path, "data set file (YAML)"),
        "model": accepted(None, Path, "weights (.pt) or architecture (.yaml)"),
        "imgsz": accepted(640, Pixels, "image size, pixels"),
        "pretrained": accepted(True, PathOrFlag, "start from the model's weights, or a path"),
        "cls_remap": accepted(True, Flag, "keep class weights whose class names match"),
        "freeze": accepted(None, Freeze | None, "layers that do not train: a count or a list"),
        "single_cls": accepted(False, Flag, "treat all classes as one"),
        "classes": accepted(None, Classes | None, "train on these classes only"),
        "project": accepted(None, Path | None, "folder of the run; default runs/private"),
        "name": accepted(None, Text | None, "name of the run"),
        "exist_ok": accepted(False, Flag, "write into an existing run folder"),
        "resume": accepted(False, PathOrFlag, "continue an interrupted run"),
        "save_period": accepted(-1, CheckpointPeriod, "epochs between checkpoints in internal/"),
        "cfg": accepted(None, Path | None, "YAML file of arguments; given ones win"),
        "device": accepted(None, Device | None, "cpu, 0, cuda:0, mps; 0,1: a process on each"),
        "workers": accepted(8, CountOrZero, "processes that load images"),
        "seed": accepted(0, CountOrZero, "augmentation and initialisation, never the noise"),
        "deterministic": accepted(True, Flag, "repeatable kernels where possible"),
        "verbose": accepted(True, Flag, "more lines on the terminal"),
    },
    "Optimizer and loss": {
        "optimizer": accepted("auto", Optimizer, "SGD, Adam, AdamW, … or auto"),
        "lr0": accepted(0.01, Rate, "initial learning rate"),
        "lrf": accepted(0.01, Fraction, "final learning rate, as a fraction of lr0"),
        "cos_lr": accepted(False, Flag, "cosine schedule instead of linear"),
        "warmup_epochs": accepted(3.0, Gain, "epochs in which the learning rate rises to lr0"),
        "momentum": accepted(0.937, Fraction, "SGD momentum or Adam's β1"),
        "weight_decay": accepted(0.0005, Fraction, "weight decay"),
        "box": accepted(7.5, Gain, "gain of the box loss"),
        "cls": accepted(0.5, Gain, "gain of the class loss"),
        "dfl": accepted(1.5, Gain, "gain of the distribution focal loss"),
        "pose": accepted(12.0, Gain, "gain of the key point loss"),
        "kobj": accepted(1.0, Gain, "gain of the key points' visibility loss"),
        "rle": accepted(1.0, Gain, "gain of the key points' likelihood loss (YOLO26)"),
        "angle": accepted(1.0, Gain, "gain of the angle loss of oriented boxes"),
        "mask_ratio": accepted(4, Count, "how much smaller masks are than images"),
    },
    "Augmentation, of each image alone": {
        "hsv_h": accepted(0.015, Fraction, "hue, fraction"),
        "hsv_s": accepted(0.7, Fraction, "saturation, fraction"),
        "hsv_v": accepted(0.4, Fraction, "brightness, fraction"),
        "degrees": accepted(0.0, Angle, "rotation, ± degrees"),
        "translate": accepted(0.1, Fraction, "translation, ± fraction of the image"),
        "scale": accepted(0.5, Scale, "scale, ± gain, or [min, max]"),
        "shear": accepted(0.0, Angle, "shear, ± degrees"),
        "perspective": accepted(0.0, Fraction, "perspective, ± fraction"),
        "flipud": accepted(0.0, Fraction, "chance of a vertical flip"),
        "fliplr": accepted(0.5, Fraction, "chance of a horizontal flip"),
        "bgr": accepted(0.0, Fraction, "chance of swapping red and blue"),
        "erasing": accepted(0.4, Fraction, "chance of erasing a part (classification)"),
        "auto_augment": accepted("randaugment", Policy | None, "policy (classification), or none"),
    },
    "Validation": {
        "val": accepted(True, Flag, "validate during training"),
        "conf": accepted(None, Fraction | None, "confidence threshold"),
        "iou": accepted(0.7, Fraction, "overlap threshold of non-maximum suppression"),
        "max_det": accepted(300, Count, "detections per image, never raised by the data"),
        "agnostic_nms": accepted(False, Flag, "non-maximum suppression across classes"),
    },
}

# The same key means the expected logical batch, or planned passes, here.
OWN_MEANING: Mapping[str, Argument] = {
    "epochs": Argument(kind=Kind.PRIVACY, default=100),
    "batch": Argument(kind=Kind.PRIVACY, default=16),
}

# What a release may tell of them. The rest are paths, names, seeds, or this machine's.
_STAYS_INSIDE = frozenset(
    {"data", "model", "pretrained", "project", "name", "exist_ok", "resume", "save_period", "cfg"}
    | {"device", "workers", "seed", "verbose"}
)
PUBLIC_SETTINGS = (
    *(name for section in ACCEPTED.values() for name in section if name not in _STAYS_INSIDE),
    *("mosaic", "mixup"),  # of views
)
