"""What trains in which steps: all of it in all of them, or a part of it alone at first.

Parts that start from nothing, as class scores do, send gradients of no use to what feeds them.
Trained alone at first they have all of a unit's clipped gradient, and less noise in it. Whatever
trains, a step's sensitivity and noise are the same, and so is its charge.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from discreet.arguments.problems import gather
from discreet.arguments.stages import EXAMPLE, first_steps_of, step_problem
from discreet.errors import ConfigurationError
from discreet.recipes import DEFAULT_IMGSZ
from discreet.yolo.parts import names_in_parts, select_trainable


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """Steps in which the same parameters train.

    Attributes:
        last_step: Number of its last step, from 1.
        parameters: What trains, by name.
    """

    last_step: int
    parameters: Mapping[str, nn.Parameter]

    @contextmanager
    def alone(self, everything: Mapping[str, nn.Parameter]) -> Generator[None]:
        """Within, nothing else of what the run trains has a gradient."""
        try:
            for name, parameter in everything.items():
                parameter.requires_grad_(name in self.parameters)
                parameter.grad = None
            yield
        finally:
            for parameter in everything.values():
                parameter.requires_grad_(True)


def stages_of(
    parameters: Mapping[str, nn.Parameter],
    *,
    steps: int,
    first: Mapping[str, Collection[str]] | None = None,
    first_steps: int | None = None,
) -> tuple[Stage, ...]:
    """The stages of a run.

    Args:
        parameters: All that trains, by name.
        steps: Planned steps.
        first: Names of what trains alone at first, by part; None where everything does from the
            start.
        first_steps: For how many steps; a third of all if not given.

    Raises:
        ConfigurationError: The first stage has no steps, leaves none, or trains other things.
    """
    whole = Stage(last_step=steps, parameters=parameters)
    if first is None:
        return (whole,)
    names = {name for part in first.values() for name in part}
    others = [part for part, inside in first.items() if not set(inside) <= set(parameters)]
    if others or not names or len(names) == len(parameters):
        what = "nothing is added after it" if names else "this model has nothing of it to train"
        raise ConfigurationError(
            f"not all of {others[0]} is among what trainable names" if others else what,
            where=f"first_trainable={'+'.join(first)}",
            do=f"Name a part of what trains, as {EXAMPLE}.",
        )
    if problem := step_problem(steps, first_steps):
        raise gather([problem])
    last = first_steps_of(steps, first_steps)
    alone = {name: parameter for name, parameter in parameters.items() if name in names}
    return Stage(last_step=last, parameters=alone), whole


def select_stages(
    model: nn.Module,
    trainable: str,
    *,
    steps: int,
    first: str | None = None,
    first_steps: int | None = None,
    freeze: int | Sequence[int | str] | None = None,
    imgsz: int = DEFAULT_IMGSZ,
) -> tuple[Stage, ...]:
    """Set what trains, as `select_trainable` does, and find the stages that it trains in.

    Args:
        model: A model of any task, with what `make_parts` adds.
        trainable: Parts that train, joined by `+`.
        steps: Planned steps.
        first: Parts that train alone at first, joined by `+`; None for none.
        first_steps: For how many steps; a third of all if not given.
        freeze: As in Ultralytics.
        imgsz: Side of the images in pixels.

    Returns:
        The stages in order; what trains in the last one is all that trains.

    Raises:
        ConfigurationError: See `select_trainable` and `stages_of`.
    """
    parameters = select_trainable(model, trainable, freeze=freeze, imgsz=imgsz)
    return stages_of(
        parameters,
        steps=steps,
        first=(first and names_in_parts(model, first, freeze=freeze, imgsz=imgsz)) or None,
        first_steps=first_steps,
    )
