"""What a private run takes where nothing is asked for: public constants, the same for all data."""

from __future__ import annotations

DEFAULT_TRAINABLE = "film+head"
DEFAULT_IMGSZ = 640

# Adam rescales each coordinate by its noise, so one learning rate serves any clip bound.
AUTO_OPTIMIZER = "Adam"
AUTO_FINAL_FACTOR = 0.1
AUTO_MOMENTUM = 0.9
_AUTO_RATES = {"all": 0.002, "whole_head": 0.005}
_AUTO_RATE = 0.02


def automatic_rate(trainable: str) -> float:
    """Initial learning rate for the automatic optimizer: smaller the more is trained."""
    return min(_AUTO_RATES.get(part, _AUTO_RATE) for part in trainable.split("+"))
