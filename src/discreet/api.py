"""The Python entrance: train privately, get a folder that may leave the building."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from discreet.result import TrainingResult
from discreet.terminal import Reporter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from discreet.checking import CheckReport


def train(given: Mapping[str, Any], *, reporter: Reporter | None = None) -> TrainingResult:
    """Train a detector privately.

    Args:
        given: Arguments by name: `data`, `model`, privacy arguments and Ultralytics' own.
        reporter: Who is told of the plan and the progress.

    Raises:
        DiscreetError: Anything that is wrong, before anything is spent or written.
    """
    return _train(given, callbacks={}, reporter=reporter)


def check(
    model: nn.Module,
    loss_fn: Callable[[nn.Module, Any], Tensor],
    batch_fn: Callable[[Sequence[int]], Any],
    *,
    engine: str = "discreet",
    **options: Any,
) -> CheckReport:
    """Check that a step of DP-SGD on any torch model and loss keeps units apart.

    Runs the step with frozen randomness on neighbouring batches and compares: losses and
    gradients of untouched units, norms, the clipped sum, the noise on every parameter, its
    divisor, and what else changes. Model and optimizer are left as they were.

    Args:
        model: Any module, in the mode in which it trains.
        loss_fn: `loss_fn(model, batch)` gives the loss of each unit, (B,), or by term, (B, T).
        batch_fn: `batch_fn([0, 2])` gives the batch of these units; the same each time.
        engine: Name of the engine for per-unit gradients.
        **options: See `discreet.checking.check_step`: `parameters`, `max_grad_norm`,
            `noise_multiplier`, `expected_batch_size`, `optimizer`, `units`, `terms`, `full`,
            `strict`, `without`.

    Raises:
        CheckError: A probe failed, and `strict=True`.
        ConfigurationError: Fewer than two units, nothing that trains, or an unknown engine.

    Examples:
        >>> import torch
        >>> data = torch.randn(4, 3), torch.randn(4)
        >>> def loss(model, batch):
        ...     return (model(batch[0]).squeeze(1) - batch[1]) ** 2
        >>> check(torch.nn.Linear(3, 1), loss, lambda u: (data[0][u], data[1][u])).passed
        True
    """
    from discreet.checking import check_step
    from discreet.gradients import ENGINES, make_engine

    def factory(name: str) -> Any:
        return lambda m, parameters: make_engine(name, m, parameters).per_example_gradients

    others = {name: factory(name) for name in ENGINES if name != engine}
    return check_step(model, loss_fn, batch_fn, engine=factory(engine), engines=others, **options)


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
