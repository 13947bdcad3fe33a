"""Ultralytics arguments that a private run refuses, with the reason and the way out.

The reasons are those of the guarantee: one image may reach the model through its own clipped
contribution only, and the sampling that runs is the sampling that is accounted.
"""

from __future__ import annotations

from collections.abc import Mapping

from discreet.arguments.policy import Argument, fixed, irrelevant, refused
from discreet.arguments.values import Fraction

_OTHERS = (
    "With public_data= it mixes public images with a private one, and with views=2 or more views "
    "of one image, which is sound."
)
_OWN_IMAGE = "Use augmentation of one image: hsv_h, degrees, translate, scale, fliplr, …"

REFUSED: Mapping[str, Argument] = {
    # One image in several gradients.
    "mosaic": refused(
        1.0,
        ours=0.0,
        why="it pastes several images into one, so one image reaches several clipped gradients",
        instead=_OTHERS,
        with_partners=Fraction,
    ),
    "mixup": refused(
        0.0,
        ours=0.0,
        why="it blends two images, so one image reaches several clipped gradients",
        instead=_OTHERS,
        with_partners=Fraction,
    ),
    "cutmix": refused(
        0.0,
        ours=0.0,
        why="it pastes a part of one image into another, so one image reaches several clipped "
        "gradients",
        instead=_OWN_IMAGE,
    ),
    "copy_paste": refused(
        0.0,
        ours=0.0,
        why="it pastes objects of one image into another, so one image reaches several clipped "
        "gradients",
        instead=_OWN_IMAGE,
    ),
    "augmentations": refused(
        None,
        ours=None,
        why="a custom transform may carry one image into another, which cannot be checked",
        instead=_OWN_IMAGE,
    ),
    "rect": refused(
        False,
        ours=False,
        why="the shape of an image would depend on the images beside it",
        instead="Leave it out: images are letterboxed to a square of imgsz.",
    ),
    # Numbers measured on the private images without noise.
    "cls_pw": refused(
        0.0,
        ours=0.0,
        why="it weighs classes by the label counts of the private images, without noise",
        instead="Leave it out.",
    ),
    "image_weights": refused(
        None,
        ours=None,
        why="it samples images by the label counts of the private images, without noise",
        instead="Leave it out: images are Poisson-sampled with equal chance.",
    ),
    "autoanchor": refused(
        None,
        ours=None,
        why="it fits anchors to the private boxes without noise",
        instead="Leave it out.",
    ),
    "quantize": refused(
        None,
        ours=None,
        why="quantization calibrates on the private images without noise",
        instead="Quantize the released weights on public images with `yolo export`.",
    ),
    "distill_model": refused(
        None,
        ours=None,
        why="a teacher trained on the private images without privacy would pass them on",
        instead="Use teacher=, which asks where the teacher comes from.",
    ),
    "patience": refused(
        100,
        ours=0,
        why="stopping by validation scores chooses by private images without noise",
        instead="Choose epochs or steps: they are planned and paid for in advance.",
    ),
    "split": refused(
        "val",
        ours="val",
        why="metrics on other splits measure private images without noise",
        instead="Leave it out, and validate the released weights with `yolo val split=…`.",
    ),
    "plots": refused(
        True,
        ours=False,
        why="they show private images and label counts",
        instead="Leave it out, and plot with `yolo val` on public images after the run.",
    ),
    # What was sampled is not what was accounted.
    "fraction": refused(
        1.0,
        ours=1.0,
        why="the number of images is part of the guarantee, and this changes it silently",
        instead="List the images to use in the data set file.",
    ),
    "time": refused(
        None,
        ours=None,
        why="the number of steps is planned and paid for in advance, not set by the clock",
        instead="Use hours, which plans as many images as fit; or epochs, or steps.",
    ),
    "amp": refused(
        True,
        ours=False,
        harmless=("fp32", "bf16"),
        why="only float32 and bfloat16 are private here: fp16 training skips steps when a gradient "
        "overflows, a test without noise",
        instead="Use amp=bf16 or amp=False; left out, it is the faster one of this machine's CPU.",
    ),
    # Traces of the private images on disk.
    "cache": refused(
        False,
        ours=False,
        harmless=(True, "ram"),
        why="it writes decoded private images beside the data set",
        instead="Use cache=ram or leave it out.",
    ),
}

FIXED: Mapping[str, Argument] = {
    "task": fixed(
        "detect",
        ours=None,
        harmless=("detect", "segment", "pose", "obb", "classify"),
        why="no task that is trained privately",
        instead="Leave it out: the task follows from the model.",
    ),
    "mode": fixed("train", ours="train", why="this mode trains; the mode is the first word"),
    "close_mosaic": fixed(10, ours=0, why="there is no mosaic to close", instead="Leave it out."),
    "copy_paste_mode": fixed("flip", ours="flip", why="copy_paste is off in private runs"),
    "multi_scale": fixed(
        0.0,
        ours=0.0,
        why="sizes that change between steps are not built yet",
        instead="Use scale, which resizes each image alone.",
    ),
    "nbs": fixed(
        64,
        ours=64,
        why="a private step has no nominal batch size to accumulate to",
        instead="Set batch, the expected number of images in a step.",
    ),
    "warmup_momentum": fixed(
        0.8, ours=0.0, why="the momentum of noisy steps does not warm up", instead="Set momentum."
    ),
    "warmup_bias_lr": fixed(
        0.1, ours=0.0, why="all learning rates warm up alike", instead="Set warmup_epochs."
    ),
    "save": fixed(
        True, ours=True, why="a run that spends a budget saves its weights", instead="Leave it out."
    ),
    "save_json": fixed(
        False,
        ours=False,
        why="detections are not written during training",
        instead="Use `yolo val save_json=True` on the released weights.",
    ),
    "save_dir": fixed(
        None, ours=None, why="the run folder is project/name", instead="Use project and name."
    ),
    "profile": fixed(
        False,
        ours=False,
        why="export speeds are not measured during training",
        instead="Use `yolo benchmark` on the released weights.",
    ),
    "compile": fixed(
        False, ours=False, why="per-image gradients are not built for compiled models yet"
    ),
    "overlap_mask": fixed(
        True, ours=True, why="masks of an image are one picture of object numbers here"
    ),
    "dropout": fixed(
        0.0, ours=0.0, why="noise regularises more than enough, and dropout hides from the check"
    ),
    "channels_last": fixed(
        None, ours=False, why="the gradient engine chooses the memory layout", instead="Set engine."
    ),
}

_OTHER_MODE = "not a training argument"
_OTHER_TASK = "not an argument of a task that is trained privately"

IRRELEVANT: Mapping[str, Argument] = {
    **irrelevant(
        {
            "dlog": 1.0,
            "dgrad": 0.5,
            "dlam": 1.0,
            "retina_masks": False,
        },
        why=_OTHER_TASK,
    ),
    **irrelevant({"dis": 6.0}, why="the weight of a distillation that teacher_gain has here"),
    **irrelevant(
        {
            # Validation, prediction and tracking.
            "dnn": False,
            "nms": None,
            "source": None,
            "vid_stride": 1,
            "stream_buffer": False,
            "visualize": False,
            "augment": False,
            "embed": None,
            "show": False,
            "save_frames": False,
            "save_txt": False,
            "save_conf": False,
            "save_crop": False,
            "show_labels": True,
            "show_conf": True,
            "show_boxes": True,
            "line_width": None,
            "tracker": "tracktrack.yaml",
            # Export.
            "format": "torchscript",
            "optimize": False,
            "dynamic": False,
            "simplify": True,
            "opset": None,
            "workspace": None,
        },
        why=_OTHER_MODE,
    ),
}

# Known to Ultralytics' Python interface or to older versions, absent from its configuration.
OUTSIDE_CONFIGURATION = ("augmentations", "save_dir", "image_weights", "autoanchor")
