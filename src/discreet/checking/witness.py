"""Sees what one step does: its charge, what the optimizer gets, what else moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from discreet.checking.attributes import same
from discreet.checking.freezing import Snapshot
from discreet.checking.subject import Subject
from discreet.errors import DiscreetError


@dataclass(frozen=True, kw_only=True)
class Update:
    """What one step handed to the optimizer.

    Attributes:
        calls: How often the optimizer was called.
        charges: How often the step was charged.
        gradients: Gradient of every declared parameter at the last call; None where it had none.
        changed: Tensors of the model that are not what they were.
        elsewhere: Declared parameters that something else than the optimizer moved.
    """

    calls: int
    charges: int
    gradients: Mapping[str, Tensor | None]
    changed: tuple[str, ...]
    elsewhere: tuple[str, ...]


class RefusedError(DiscreetError):
    """What `refuse` raises, and a step must let through."""


def refuse() -> None:
    """A charge that a ledger refuses.

    Raises:
        RefusedError: Always.
    """
    raise RefusedError("the charge is refused")


class Witness:
    """Watches the optimizer of a subject while a step runs.

    Args:
        subject: Whose step it is.
        snapshot: The model before the step.
    """

    def __init__(self, subject: Subject, snapshot: Snapshot) -> None:
        self._subject, self._snapshot = subject, snapshot
        self._calls = self._charges = 0
        self._gradients: dict[str, Tensor | None] = {}
        self._left: dict[str, Tensor] = {}  # parameters as the optimizer left them
        self._elsewhere: set[str] = set()
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        """Itself."""
        optimizer = self._subject.optimizer
        self._hooks = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        """Watch no more."""
        for hook in self._hooks:
            hook.remove()

    def count_charge(self) -> None:
        """Stands where a run would charge its ledger."""
        self._charges += 1

    def update(self) -> Update:
        """What the step did, when it is over."""
        self._elsewhere.update(self._moved())
        return Update(
            calls=self._calls,
            charges=self._charges,
            gradients=self._gradients,
            changed=tuple(self._snapshot.changed()),
            elsewhere=tuple(sorted(self._elsewhere)),
        )

    def _before(self, *_: object) -> None:
        self._calls += 1
        for name, parameter in self._subject.parameters.items():
            grad = parameter.grad
            self._gradients[name] = None if grad is None else grad.detach().float().clone()
        self._elsewhere.update(self._moved())

    def _after(self, *_: object) -> None:
        self._left = {n: p.detach().clone() for n, p in self._subject.parameters.items()}

    def _moved(self) -> list[str]:
        """Declared parameters that are not as the optimizer, or the model's state, left them."""
        parameters = self._subject.parameters
        if not self._left:
            return [name for name in self._snapshot.changed() if name in parameters]
        return [n for n, p in parameters.items() if not same(p.detach(), self._left[n])]
