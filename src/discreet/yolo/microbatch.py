"""How many images fit one forward pass, and which of them are one unit.

Sizes are measured on a blank image, never on private ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import psutil
import torch
from torch import Tensor, nn

from discreet.gradients import Units
from discreet.yolo.batches import Batch, images_of, joined

T = TypeVar("T")

# On a CPU a larger part only leaves the cache, unless images are small: a part costs something
# whatever its size, and at 160 px 64 images take 11 % less time than 16. A GPU is to be filled.
_LARGEST_CPU, _LARGEST_GPU = 16, 256
_LARGEST_SMALL, _SMALL = 64, 1 << 30  # images; bytes that they take together
_SHARE_OF_MEMORY = 0.4
_SMALLEST_HALF = 8


def automatic_size(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    *,
    imgsz: int,
    device: torch.device,
    sharing: int = 1,
) -> int:
    """Largest power of two of images whose activations and gradients fit the free memory.

    Args:
        model: The model, on `device`.
        parameters: What trains; each image's gradient of it is held until it is clipped.
        imgsz: Side of an image in pixels.
        device: Where the model runs.
        sharing: How many processes there are on this host: on a CPU they share its memory.
    """
    per_image = 2 * _saved_bytes(model, imgsz, device)  # activations, and gradients of them
    per_image += 4 * sum(parameter.numel() for parameter in parameters.values())
    if device.type == "cuda":
        free, largest = torch.cuda.mem_get_info(device)[0], _LARGEST_GPU
    else:
        free = psutil.virtual_memory().available // sharing
        largest = min(max(_LARGEST_CPU, _SMALL // max(per_image, 1)), _LARGEST_SMALL)
    fitting = max(1, min(largest, int(free * _SHARE_OF_MEMORY / max(per_image, 1))))
    return 1 << (fitting.bit_length() - 1)


def _saved_bytes(model: nn.Module, imgsz: int, device: torch.device) -> int:
    total = 0
    weights = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        if tensor.data_ptr() not in weights:  # those are there once
            total += tensor.numel() * tensor.element_size()
        return tensor

    blank = torch.zeros(1, 3, imgsz, imgsz, device=device)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model(blank)
    return total


def images_in(batch: Mapping[str, Any]) -> int:
    """Number of images of a micro-batch, or of their views, loaded or known."""
    return len(batch["features"][0] if "features" in batch else batch["img"])


def packed(units: Sequence[Sequence[T]], size: int) -> Iterator[list[Sequence[T]]]:
    """Units in parts of at most `size` images; a larger unit is a part of its own.

    A unit is never broken apart: its mean gradient is clipped once. So a part holds at most
    `size` images, or those of one unit, whichever is more.
    """
    part: list[Sequence[T]] = []
    images = 0
    for unit in units:
        if part and images + len(unit) > size:
            yield part
            part, images = [], 0
        part.append(unit)
        images += len(unit)
    if part:
        yield part


def units_of(batch: Mapping[str, Any], device: torch.device) -> tuple[Units | None, Tensor | float]:
    """Which images of a micro-batch are one unit, and the weight of each image's loss.

    The key `unit_sizes` says how many images, views included, each unit has, one unit behind the
    other; without it, every image is a unit. A unit's loss is the mean over its images.

    Returns:
        The units, None where each image is one; and weights, float32 (B,), or 1.
    """
    if "unit_sizes" not in batch:
        return None, 1.0
    sizes = torch.tensor(batch["unit_sizes"], device=device)
    index = torch.repeat_interleave(torch.arange(len(sizes), device=device), sizes)
    return Units(index=index, count=len(sizes)), 1 / sizes[index]


def even_size(most: int, *, units: float, of_a_unit: int) -> int:
    """How many images each part of a step is filled up to, where all are to be alike.

    The last part is half empty on average: so there are six or more, of eight images or more; where
    that is too many for three, three.

    Args:
        most: Most images that fit.
        units: Units that a step is expected to draw.
        of_a_unit: Images of each, its views included.
    """
    whole = max(1.0, min(units / 3, max(8 / of_a_unit, units / 6)))
    fitting = max(1, most // of_a_unit)
    together = 1 << (min(int(whole), fitting).bit_length() - 1)
    return min(most, together * of_a_unit)


def part_sizes(most: int) -> list[int]:
    """How many units parts are of, largest first: the most, then halves, down to eight."""
    sizes = [most]
    while sizes[-1] // 2 >= _SMALLEST_HALF:
        sizes.append(sizes[-1] // 2)
    return sizes


def filled(
    batch: Batch, units: Units | None, weights: Tensor | float, *, size: int, device: torch.device
) -> tuple[Batch, Units | None, Tensor | float]:
    """A part filled up with copies of its images, without weight.

    How many images run at once decides which kernels they run through. What these round otherwise
    is nothing in single precision, but makes bfloat16 decide otherwise here and there, and a
    gradient percents longer: how many are left for a step's last part would change how an image is
    clipped. So all parts are as large.

    Args:
        batch: A part of a step; one unit of more than `size` images is always one alone.
        units: As from `units_of`; a copy belongs to the unit of what it is a copy of.
        weights: As from `units_of`.
        size: How many images it is to have.
        device: Where they are.
    """
    images = images_in(batch)
    if images >= size:
        return batch, units, weights
    times = -(-size // images)
    many: Batch = joined([batch] * times, [images] * times)
    if "features" in batch:
        many["features"] = tuple(torch.cat([feature] * times) for feature in batch["features"])
    if "keys" in batch:
        many["keys"] = [*batch["keys"]] * times
    index = torch.arange(images, device=device) if units is None else units.index
    count = images if units is None else units.count
    shares = torch.zeros(size, device=device)
    shares[:images] = weights
    return _part(many, 0, size), Units(index=index.repeat(times)[:size], count=count), shares


def halves(batch: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """A micro-batch split in two; itself alone if it is a single unit."""
    sizes = batch.get("unit_sizes", [1] * images_in(batch))
    if len(sizes) < 2:
        return [batch]
    middle = len(sizes) // 2
    images = sum(sizes[:middle])
    first, second = _part(batch, 0, images), _part(batch, images, sum(sizes))
    if "unit_sizes" in batch:
        first["unit_sizes"], second["unit_sizes"] = sizes[:middle], sizes[middle:]
    return [first, second]


def _part(batch: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    part = images_of(batch, start, stop)
    if "keys" in batch:
        part["keys"] = batch["keys"][start:stop]
    if "features" in batch:
        part["features"] = tuple(feature[start:stop] for feature in batch["features"])
    return part
