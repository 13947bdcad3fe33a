"""How exactly a model computes: in bfloat16 only where that ties no image to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from discreet.errors import ConfigurationError, DiscreetError
from discreet.step import is_out_of_memory

if TYPE_CHECKING:
    from discreet.arguments import PrivacyArguments
    from discreet.yolo.train import PrivateDetectionTrainer

_FEWEST_IMAGES = 24  # of a step; of fewer, half of what is computed would be filling
_HALF = (torch.bfloat16, torch.float16)
_LARGEST_ROUNDING = 1e-6  # of an image's gradient: a norm's last bits


def takes_bfloat16(trainer: PrivateDetectionTrainer) -> bool:
    """Whether a run is to compute in bfloat16, as it was asked or as is faster here.

    Args:
        trainer: A trainer whose model and engine are ready.

    Raises:
        ConfigurationError: It was asked for, and would tie images to one another, or takes more
            memory than there is.
    """
    asked, place = trainer.prepared.performance.bfloat16, trainer.team.place
    images = trainer.loop.expected_images
    if not wants_bfloat16(asked, trainer.device, images=images, processes=place.size):
        return False
    if place.size > place.local_size:
        raise ConfigurationError(
            "hosts may round otherwise in bfloat16, and which of them computes an image "
            "depends on who else is drawn",
            where="amp=bf16",
            do="leave amp out",
        )
    try:
        change = _change_by_company(trainer)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if asked:
            raise too_many_at_once(trainer.loop.images_of_a_part) from None
        trainer.reporter.notice(
            "computing in float32, which may take fewer images at once: bfloat16 takes more than "
            "fit the memory"
        )
        return False
    if change is None:
        return asked is True
    if change <= _LARGEST_ROUNDING:
        return True
    if asked:
        raise ConfigurationError(
            "in bfloat16 an image's gradient depends on who is drawn beside it on this "
            f"machine, by {change:.1g} of its length: what one image adds may exceed its bound",
            where="amp=bf16",
            do="use amp=False, which rounds finely enough",
        )
    trainer.reporter.notice(
        "computing in float32: here bfloat16 rounds an image by who is drawn beside it; steps may "
        "take twice the time planned"
    )
    return False


def too_many_at_once(images: int) -> ConfigurationError:
    """What to say of a part that does not fit, and in bfloat16 may not become smaller.

    Args:
        images: How many images it has, filled up.
    """
    if images == 1:
        return ConfigurationError(
            "not even one image fits the memory",
            where="imgsz",
            do="free memory, or give a smaller imgsz=, zoom= or model=, or a trainable= of less",
        )
    return ConfigurationError(
        f"{images} images do not fit the memory at once, and in bfloat16 each part of a step has "
        "as many",
        where="micro_batch",
        do="give a smaller micro_batch=, or amp=False, which takes fewer at once where it must",
    )


def asked_for_bfloat16(amp: object) -> bool | None:
    """What `amp=` says; None where it was left out."""
    return None if amp is None else amp == "bf16"


def images_of_a_step(asked: PrivacyArguments, *, most: int) -> int:
    """Images, views included, that a step is expected to read, or more where its batch is open.

    Args:
        asked: What the user asked for.
        most: All images.
    """
    images = most if asked.batch is None else asked.batch * (asked.images_of_a_unit or 1)
    return min(images, most) * (asked.views or 1)


def wants_bfloat16(
    asked: bool | None, device: torch.device, *, images: float, processes: int
) -> bool:
    """Whether a run is to compute in bfloat16, unless that ties images to one another.

    Args:
        asked: What was asked for; None lets it where that is faster, but no team: its processes
            may round otherwise.
        device: Where the model's passes run.
        images: Images that a step is expected to read, or more: few do not fill its parts.
        processes: How many train together.
    """
    if asked is not None:
        return asked
    return processes == 1 and images >= _FEWEST_IMAGES and is_fast_in_bfloat16(device)


def rounds_by(device: torch.device) -> dict[str, str]:
    """What the last bits of a pass in bfloat16 depend on, by what it is called.

    Args:
        device: Where a model's passes run.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(_capabilities())
    return {"devices": f"{device.type} {name}", "numbers of threads": str(torch.get_num_threads())}


def _change_by_company(trainer: PrivateDetectionTrainer) -> float | None:
    """What bfloat16 changes by who is beside an image; None where images meet anyway."""
    from discreet.yolo.checking import change_by_company  # it imports the trainer's module

    trainer.amp = True
    try:
        return change_by_company(trainer)
    except ConfigurationError:
        raise
    except DiscreetError:  # the check of the step says more of it
        return None


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether it is a CPU that multiplies bfloat16 faster than single precision.

    By AVX512-BF16 or AMX, as measured on whole runs; on GPUs none have been compared yet.

    Args:
        device: Where a model's passes run.
    """
    able = _capabilities()
    return device.type == "cpu" and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _capabilities() -> dict[str, object]:
    """What the CPU can do, as torch has it; nothing from older versions."""
    return cast("dict[str, object]", getattr(torch.cpu, "get_capabilities", dict)())


def in_single_precision(predicted: Any) -> Any:
    """What a model predicts, with tensors of less in float32: losses are no place for rounding."""

    def convert(found: Any) -> Any:
        return found.float() if isinstance(found, Tensor) and found.dtype in _HALF else found

    return tree_map(convert, predicted)
