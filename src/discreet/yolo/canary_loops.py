"""The steps of an audited run, and the path of one canary through them.

All canaries are units that the sampler draws; only those whose coin says so are really there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from discreet.auditing.canaries import CanaryWatch, GradientCanaries
from discreet.gradients import GradientEngine
from discreet.yolo.loading import StepParts
from discreet.yolo.loop import StepLoop

if TYPE_CHECKING:
    from discreet.yolo.train import PrivateDetectionTrainer

_CANARIES = "canaries"  # key of a part that holds canaries instead of images

Numbers = NDArray[np.int64]


def split_draw(
    draw: Sequence[int], *, units: int, included: NDArray[np.bool_]
) -> tuple[Numbers, Numbers]:
    """The private units of a draw, and the numbers of its canaries that are really there.

    Args:
        draw: Numbers of units; canaries come after all others.
        units: Number of private units.
        included: Whether each canary is there.
    """
    drawn = np.asarray(draw, dtype=np.int64)
    canaries = drawn[drawn >= units] - units
    return drawn[drawn < units], canaries[included[canaries]]


class ImageCanaryLoop(StepLoop):
    """Canaries are images among the training images, and go their way.

    Args:
        trainer: The trainer; its data set ends with the canaries.
        units: Number of its private units.
        included: Whether each canary is there.
    """

    def __init__(
        self, trainer: PrivateDetectionTrainer, *, units: int, included: NDArray[np.bool_]
    ) -> None:
        super().__init__(trainer)
        self._units, self._included = units, included

    def draws(self, *, first_step: int) -> Iterator[Sequence[int]]:
        """The units of each step that are really there."""
        for draw in super().draws(first_step=first_step):
            units, there = split_draw(draw, units=self._units, included=self._included)
            yield cast(Sequence[int], np.concatenate([units, there + self._units]))


class GradientCanaryLoop(StepLoop):
    """Canaries are crafted gradients, the last part of each step.

    Args:
        trainer: The trainer.
        units: Number of its private units.
        canaries: The gradients, and which are there.
        watch: Who reads the gradients of the steps.
    """

    def __init__(
        self,
        trainer: PrivateDetectionTrainer,
        *,
        units: int,
        canaries: GradientCanaries,
        watch: CanaryWatch,
    ) -> None:
        super().__init__(trainer)
        self._units, self._canaries, self._watch = units, canaries, watch
        self._drawn: deque[Numbers] = deque()

    def draws(self, *, first_step: int) -> Iterator[Sequence[int]]:
        """The private units of each step; its canaries wait until these are through."""
        for draw in super().draws(first_step=first_step):
            units, there = split_draw(draw, units=self._units, included=self._canaries.included)
            self._drawn.append(there)
            yield cast(Sequence[int], units)

    def load_ahead(self, *, first_step: int) -> StepParts:
        """The parts of each step, canaries last."""
        return _WithCanaries(super().load_ahead(first_step=first_step), self._drawn)

    def gradients_of(self, engine: GradientEngine, batch: dict[str, Any]) -> Any:
        """Gradient of each unit's loss, or of each canary."""
        if _CANARIES in batch:
            return self._canaries.gradients(batch[_CANARIES], self.trainer.parameters)
        return self._watch.images(super().gradients_of(engine, batch))


class _WithCanaries:
    """The images of a step, and after them its canaries as a part of their own."""

    def __init__(self, images: StepParts, drawn: deque[Numbers]) -> None:
        self._images, self._drawn = images, drawn

    def next_step(self) -> Iterator[dict[str, Any]]:
        yield from self._images.next_step()
        canaries = self._drawn.popleft()
        if len(canaries):
            yield {_CANARIES: canaries}
