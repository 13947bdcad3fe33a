"""What the layers before the first trained one make of an image, computed once.

Those layers are a function of one image that no step changes. Where augmentation shows an image in
few states (the recipe only flips), each state's features are kept and looked up by the exact pixels
that would have been the input: not by the image's place, number or name, so that what is looked up
can only be what would have been computed. Features stay in this process's memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel

# With any of these on, an image hardly ever looks the same twice.
_ENDLESS = (
    *("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective"),
    *("mosaic", "mixup"),
)


class FrozenFront:
    """The frozen layers of a model and a memory of their outputs.

    Args:
        model: A model that runs its layers in their order, on the CPU.
        layers: How many of its first layers nothing trains in.
        memory: Most bytes to keep; what no longer fits is computed each time.
    """

    def __init__(self, model: nn.Module, *, layers: int, memory: int) -> None:
        self._model = cast(Any, model)
        self._layers = layers
        self._memory = memory
        self._known: dict[bytes, dict[int, Tensor]] = {}
        behind = [
            index if index >= 0 else layer.i + index
            for layer in self._model.model[layers:]
            for index in ([layer.f] if isinstance(layer.f, int) else layer.f)
        ]
        self._read = sorted({index for index in behind if index < layers})

    @classmethod
    def of(
        cls,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        *,
        settings: Mapping[str, Any],
        device: torch.device,
        memory: int,
    ) -> FrozenFront | None:
        """The frozen front of a run's model; None where it would not pay.

        Args:
            model: The model, as it trains.
            parameters: What trains, by name.
            settings: Augmentation settings.
            device: Where it runs.
            memory: Most bytes to keep.
        """
        layers = min(int(name.split(".")[1]) for name in parameters)
        plain = isinstance(model, DetectionModel) and not isinstance(model, RTDETRDetectionModel)
        few_states = not any(settings.get(name) for name in _ENDLESS)
        if not (layers and memory and plain and few_states and device.type == "cpu"):
            return None
        return cls(model, layers=layers, memory=memory)

    def predict(self, images: Tensor, *, pixels: Tensor) -> Any:
        """What `model(images)` returns.

        Args:
            images: float (B, 3, H, W), as the model takes them.
            pixels: The same as they were loaded, uint8: what they are known by.
        """
        keys = [_digest(image) for image in pixels]
        rows = [self._known.get(key) for key in keys]
        missing = [place for place, row in enumerate(rows) if row is None]
        if missing:
            computed = self._compute(images[missing])
            for number, place in enumerate(missing):
                rows[place] = {index: part[number] for index, part in computed.items()}
                self._keep(keys[place], cast(Any, rows[place]))
        known = cast("list[dict[int, Tensor]]", rows)
        return self._finish({i: torch.stack([row[i] for row in known]) for i in self._read})

    def _compute(self, images: Tensor) -> dict[int, Tensor]:
        """Features (B, …) by the layer that made them, of the layers that are read behind."""
        outputs: dict[int, Any] = {-1: images}
        with torch.no_grad():
            for layer in self._model.model[: self._layers]:
                outputs[layer.i] = layer(_inputs(layer, outputs))
        return {index: outputs[index] for index in self._read}

    def _finish(self, outputs: dict[int, Any]) -> Any:
        # The layer just before the first trained one is its default input, and so among these.
        result: Any = None
        for layer in self._model.model[self._layers :]:
            result = outputs[layer.i] = layer(_inputs(layer, outputs))
        return result

    def _keep(self, key: bytes, row: dict[int, Tensor]) -> None:
        size = sum(part.numel() * part.element_size() for part in row.values())
        if size <= self._memory:
            self._memory -= size
            self._known[key] = {index: part.clone() for index, part in row.items()}


def _inputs(layer: Any, outputs: Mapping[int, Any]) -> Any:
    def output(index: int) -> Any:
        return outputs[index if index >= 0 else layer.i + index]

    return output(layer.f) if isinstance(layer.f, int) else [output(index) for index in layer.f]


def _digest(image: Tensor) -> bytes:
    return hashlib.blake2b(image.contiguous().numpy().data, digest_size=16).digest()
