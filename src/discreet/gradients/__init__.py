"""Per-example gradients: engines that give each image's own gradient, exactly."""

from discreet.gradients.engine import ENGINES, GradientEngine, make_engine
from discreet.gradients.layerwise import LayerwiseEngine
from discreet.gradients.opacus_engine import OpacusEngine
from discreet.gradients.records import Units
from discreet.gradients.reference import ReferenceEngine

__all__ = [
    "ENGINES",
    "GradientEngine",
    "LayerwiseEngine",
    "OpacusEngine",
    "ReferenceEngine",
    "Units",
    "make_engine",
]
