"""The seam between the mechanism and the ways to compute per-example gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor, nn

from discreet.clipping import PerExampleGradients
from discreet.errors import ConfigurationError
from discreet.gradients.layerwise import LayerwiseEngine
from discreet.gradients.opacus_engine import OpacusEngine
from discreet.gradients.records import Units
from discreet.gradients.reference import ReferenceEngine


class GradientEngine(Protocol):
    """Computes each image's gradient; all engines agree to 1e-5.

    Attributes:
        name: What the configuration calls it.
    """

    name: str

    def per_example_gradients(
        self, losses: Callable[[], Tensor], units: Units | None = None
    ) -> PerExampleGradients:
        """Run `losses` (a forward pass giving one loss per image, shape (B,)) and one backward.

        With `units`, the gradients of the images of one unit (or of the views of one image) add
        up before norms are taken. The model is left as it was: no gradients, hooks or flags
        remain, also on errors.
        """
        ...


ENGINES: dict[str, Callable[[nn.Module, Mapping[str, nn.Parameter]], GradientEngine]] = {
    LayerwiseEngine.name: LayerwiseEngine,
    OpacusEngine.name: OpacusEngine,
    ReferenceEngine.name: ReferenceEngine,
}


def make_engine(
    name: str, model: nn.Module, parameters: Mapping[str, nn.Parameter]
) -> GradientEngine:
    """Build an engine by name.

    Args:
        name: "discreet", "opacus" or "reference".
        model: The model that the losses run.
        parameters: Dotted name to parameter whose per-example gradients are wanted.

    Raises:
        ConfigurationError: The name is unknown.
        ModelError: A parameter is not the model's.
    """
    if name not in ENGINES:
        raise ConfigurationError(
            f"expected engine to be one of {', '.join(ENGINES)}, got engine={name!r}",
            where="engine",
        )
    return ENGINES[name](model, parameters)
