"""How many images fit one forward pass: measured on a blank image, never on private ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from discreet.yolo.batches import images_of

# On a CPU a larger part only leaves the cache; on a GPU it fills the chip.
_LARGEST_CPU, _LARGEST_GPU = 16, 256
_SHARE_OF_MEMORY = 0.4


def automatic_size(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], *, imgsz: int, device: torch.device
) -> int:
    """Largest power of two of images whose activations and gradients fit the free memory.

    Args:
        model: The model, on `device`.
        parameters: What trains; each image's gradient of it is held until it is clipped.
        imgsz: Side of an image in pixels.
        device: Where the model runs.
    """
    per_image = 2 * _saved_bytes(model, imgsz, device)  # activations, and gradients of them
    per_image += 4 * sum(parameter.numel() for parameter in parameters.values())
    if device.type == "cuda":
        free, largest = torch.cuda.mem_get_info(device)[0], _LARGEST_GPU
    else:
        free, largest = psutil.virtual_memory().available, _LARGEST_CPU
    fitting = max(1, int(free * _SHARE_OF_MEMORY / max(per_image, 1)))
    return min(largest, 1 << (fitting.bit_length() - 1))


def _saved_bytes(model: nn.Module, imgsz: int, device: torch.device) -> int:
    total = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    blank = torch.zeros(1, 3, imgsz, imgsz, device=device)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model(blank)
    return total


def halves(batch: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """A micro-batch split in two; itself alone if it is a single image, or its views."""
    images, views = len(batch["img"]), batch.get("views", 1)
    if images < 2 * views:
        return [batch]
    middle = images // views // 2 * views
    return [_part(batch, 0, middle), _part(batch, middle, images)]


def _part(batch: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    views = {"views": batch["views"]} if "views" in batch else {}
    return images_of(batch, start, stop) | views
