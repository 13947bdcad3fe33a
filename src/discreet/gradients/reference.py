"""The oracle: one backward pass, or one whole pass, per image. Slow, and plainly right."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from discreet.errors import ModelError
from discreet.gradients.isolation import (
    Losses,
    check_losses,
    check_parameters,
    check_units,
    isolated,
    refuse_mixing,
    sound_norms,
)
from discreet.gradients.records import RecordedGradients, Units


class ReferenceEngine:
    """Per-example gradients by autograd, one image after the other.

    Args:
        model: The model that `losses` runs.
        parameters: Dotted name to parameter.

    Raises:
        ModelError: A parameter is not the model's.
    """

    name = "reference"

    def __init__(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        check_parameters(model, parameters)
        self._model = model
        self._parameters = dict(parameters)

    def per_example_gradients(
        self, losses: Losses, units: Units | None = None
    ) -> RecordedGradients:
        """Run `losses` once, and one backward pass per image; see `LayerwiseEngine`.

        The ordinary backward pass multiplies other images' rows by zero, so an image whose
        activations are not finite spoils the others: such a batch is refused.

        Raises:
            ModelError: A layer mixes images, the losses are not per image, or a gradient is not
                finite.
        """
        refuse_mixing(self._model)
        with isolated(self._model.parameters(), self._parameters), sound_norms(self._model):
            values = losses()
            check_losses(values)
            check_units(units, len(values))
            rows = [self._gradients(value) for value in values] if values.requires_grad else []
        gradients = self._stack(rows, len(values), units)
        if not all(bool(torch.isfinite(norms).all()) for norms in gradients.squared_norms.values()):
            raise ModelError(
                "a gradient is not finite, and the reference engine cannot tell whose it is",
                do="use engine=discreet",
            )
        return gradients

    def single_image_gradients(
        self, loss_of: Callable[[int], Tensor], images: int
    ) -> RecordedGradients:
        """Run a whole pass per image: exact for any image, finite or not.

        Args:
            loss_of: Runs the model on one image alone; returns its loss, a scalar.
            images: B; `loss_of` is called with 0 … B - 1.
        """
        refuse_mixing(self._model)
        with isolated(self._model.parameters(), self._parameters), sound_norms(self._model):
            rows = [self._gradients(loss_of(image)) for image in range(images)]
        return self._stack(rows, images)

    def _gradients(self, loss: Tensor) -> list[Tensor]:
        parameters = list(self._parameters.values())
        return list(
            torch.autograd.grad(
                loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        )

    def _stack(
        self, rows: list[list[Tensor]], images: int, units: Units | None = None
    ) -> RecordedGradients:
        columns = zip(*rows, strict=True)
        stacked = dict(zip(self._parameters, map(torch.stack, columns), strict=False))
        return RecordedGradients.of(self._parameters, stacked, images, units)
