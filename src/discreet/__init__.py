"""Train Ultralytics YOLO detectors on private images with differential privacy.

    from discreet import PrivateYOLO

    run = PrivateYOLO("yolov8n.pt").train(data="bccd/data.yaml", epsilon=8)
    run.spent.epsilon, run.release

Importing this package changes nothing and imports neither torch nor Ultralytics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from discreet.errors import DiscreetError
from discreet.privacy import NeighboringRelation, PrivacySpent, PrivacyUnit

if TYPE_CHECKING:
    from discreet.api import PrivateYOLO, check, plan, verify
    from discreet.checking import CheckReport
    from discreet.planning import Plan
    from discreet.result import TrainingResult
    from discreet.statement.verify import Verification
    from discreet.yolo.train import PrivateDetectionTrainer

__version__ = "0.1.0"

__all__ = [
    "CheckReport",
    "DiscreetError",
    "NeighboringRelation",
    "Plan",
    "PrivacySpent",
    "PrivacyUnit",
    "PrivateDetectionTrainer",
    "PrivateYOLO",
    "TrainingResult",
    "Verification",
    "__version__",
    "check",
    "plan",
    "verify",
]

_LATE = {
    "CheckReport": "discreet.checking",
    "Plan": "discreet.planning",
    "check": "discreet.api",
    "plan": "discreet.api",
    "PrivateYOLO": "discreet.api",
    "PrivateDetectionTrainer": "discreet.yolo.train",
    "TrainingResult": "discreet.result",
    "Verification": "discreet.statement.verify",
    "verify": "discreet.api",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
