"""The frozen front of a detector: layers that run before anything that trains.

What they give for an image does not change in a run, nor depend on the images beside it, since
normalisations are frozen or of one image. So it may be computed once; see `feature_cache`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel, OBBModel, PoseModel, SegmentationModel

Features = tuple[Tensor, ...]  # outputs of the front that later layers use, (B, C, H, W) each


class FrozenFront:
    """A detector in two halves, which in a row are the detector.

    The front ends behind the last layer with parameters of its own before the first that trains:
    what lies between, upsampling and joining, is cheap to do again and large to keep.

    Args:
        model: A detection model with `requires_grad` set on what trains.

    Attributes:
        layers: Number of layers of the front; 0 if the first layer trains, or if the model is
            not run layer by layer as Ultralytics' detectors are.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.layers = _frozen_layers(model)
        whole = cast(Any, model).model
        self._outputs = sorted(
            {
                source
                for layer in range(self.layers, len(whole))
                for source in _sources(whole, layer)
                if source < self.layers
            }
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self._model.parameters()).device

    def __call__(self, images: Tensor) -> Features:
        """What the rest needs of these images, (B, 3, H, W) in [0, 1]; the images, if all train."""
        if not self.layers:
            return (images,)
        with torch.no_grad():
            outputs = self._run(images, {}, range(self.layers))
        return tuple(outputs[layer] for layer in self._outputs)

    def rest(self, features: Features) -> Any:
        """What the model gives for the images that these features are of."""
        if not self.layers:
            return self._model(*features)
        # Through the model's own call, so that its hooks see it.
        with _predicting(self._model, self._resume):
            return self._model(features)

    def _resume(self, features: Features, *_: Any, **__: Any) -> Any:
        layers = range(self.layers, len(cast(Any, self._model).model))
        known = dict(zip(self._outputs, features, strict=True))
        return self._run(known.get(self.layers - 1), known, layers)[layers[-1]]

    def _run(self, x: Any, known: dict[int, Any], layers: Sequence[int]) -> dict[int, Any]:
        """Outputs by layer; as `DetectionModel.predict` computes them."""
        whole, outputs = cast(Any, self._model).model, dict(known)
        for layer in layers:
            module = whole[layer]
            if module.f != -1:
                inputs = [outputs[source] for source in _sources(whole, layer)]
                x = inputs if isinstance(module.f, list) else inputs[0]
            x = module(x)
            outputs[layer] = x
        return outputs


def _sources(whole: Any, layer: int) -> list[int]:
    """The layers whose outputs a layer takes; -1 is the image."""
    sources = whole[layer].f
    sources = sources if isinstance(sources, list) else [sources]
    return [layer + source if source < 0 else source for source in cast(list[int], sources)]


_LAYER_BY_LAYER = (DetectionModel, SegmentationModel, PoseModel, OBBModel)


def _frozen_layers(model: nn.Module) -> int:
    if type(model) not in _LAYER_BY_LAYER or "predict" in vars(model):
        return 0
    layers = list(cast(Any, model).model)
    trains = [any(p.requires_grad for p in layer.parameters()) for layer in layers]
    first = trains.index(True) if True in trains else 0
    while first and not list(layers[first - 1].parameters()):
        first -= 1
    return first


@contextmanager
def _predicting(model: nn.Module, predict: Any) -> Generator[None]:
    """What runs instead of the layers when the model is called."""
    cast(Any, model).predict = predict
    try:
        yield
    finally:
        del cast(Any, model).predict
