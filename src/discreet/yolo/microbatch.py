"""How many images fit one forward pass: measured on a blank image, never on private ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from discreet.gradients import Units

# On a CPU a larger part only leaves the cache, unless images are small: a part costs something
# whatever its size, and at 160 px 64 images take 11 % less time than 16. A GPU is to be filled.
_LARGEST_CPU, _LARGEST_GPU = 16, 256
_LARGEST_SMALL, _SMALL = 64, 1 << 30  # images; bytes that they take together
_SHARE_OF_MEMORY = 0.4


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


def views_together(batch: Mapping[str, Any], device: torch.device) -> Units | None:
    """The views of an image, one behind the other, as one unit; None where each is alone."""
    views, images = int(batch.get("views", 1)), images_in(batch)
    if views == 1:
        return None
    index = torch.arange(images, device=device) // views
    return Units(index=index, count=images // views)


def halves(batch: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """A micro-batch split in two; itself alone if it is a single image, or its views."""
    images, views = images_in(batch), batch.get("views", 1)
    if images < 2 * views:
        return [batch]
    middle = images // views // 2 * views
    return [_part(batch, 0, middle), _part(batch, middle, images)]


def _part(batch: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    inside = (batch["batch_idx"] >= start) & (batch["batch_idx"] < stop)
    part: dict[str, Any] = {
        "batch_idx": batch["batch_idx"][inside] - start,
        "cls": batch["cls"][inside],
        "bboxes": batch["bboxes"][inside],
    }
    for key in ("img", "keys"):
        if key in batch:
            part[key] = batch[key][start:stop]
    if "features" in batch:
        part["features"] = tuple(feature[start:stop] for feature in batch["features"])
    return part | ({"views": batch["views"]} if "views" in batch else {})
