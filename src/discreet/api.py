"""The Python entrance: train privately, get a folder that may leave the building."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from discreet.result import TrainingResult
from discreet.terminal import Reporter


def train(given: Mapping[str, Any], *, reporter: Reporter | None = None) -> TrainingResult:
    """Train a detector privately.

    Args:
        given: Arguments by name: `data`, `model`, privacy arguments and Ultralytics' own.
        reporter: Who is told of the plan and the progress.

    Raises:
        DiscreetError: Anything that is wrong, before anything is spent or written.
    """
    return _train(given, callbacks={}, reporter=reporter)


class PrivateYOLO:
    """A YOLO detector that is trained with differential privacy.

    Args:
        model: Public weights (`yolov8n.pt`, a local file) or an architecture (`yolov8n.yaml`).

    Examples:
        >>> run = PrivateYOLO("yolov8n.pt").train(data="bccd/data.yaml", epsilon=8)
        ... # doctest: +SKIP
        >>> run.spent.epsilon, run.release  # doctest: +SKIP
    """

    def __init__(self, model: str | Path) -> None:
        self.model = str(model)
        self._callbacks: dict[str, list[Callable[[Any], None]]] = {}

    def add_callback(self, event: str, callback: Callable[[Any], None]) -> None:
        """Call `callback(trainer)` at one of Ultralytics' events, such as "on_fit_epoch_end"."""
        self._callbacks.setdefault(event, []).append(callback)

    def train(self, *, reporter: Reporter | None = None, **arguments: Any) -> TrainingResult:
        """Train privately; arguments as on the command line.

        Args:
            reporter: Who is told of the plan and the progress; silent if not given.
            **arguments: `data`, privacy arguments (`epsilon=8`) and Ultralytics' own.

        Raises:
            DiscreetError: Anything that is wrong, before anything is spent or written.
        """
        given = {"model": self.model, **arguments}
        return _train(given, callbacks=self._callbacks, reporter=reporter)


def _train(
    given: Mapping[str, Any],
    *,
    callbacks: Mapping[str, list[Callable[[Any], None]]],
    reporter: Reporter | None,
) -> TrainingResult:
    # Late: importing Ultralytics and torch takes seconds that `--help` should not.
    from discreet.yolo.train import PrivateDetectionTrainer, default_callbacks

    events = default_callbacks()
    for event, functions in callbacks.items():
        events[event].extend(functions)
    trainer = PrivateDetectionTrainer(overrides=given, _callbacks=events, reporter=reporter)
    trainer.train()
    assert trainer.result is not None
    return trainer.result
