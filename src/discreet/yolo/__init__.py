"""Training Ultralytics YOLO detectors privately: the only room that imports Ultralytics."""

from discreet.yolo import _compat  # first: it tells Ultralytics what it may not do

__all__ = ["_compat"]
