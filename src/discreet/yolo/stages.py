"""What trains in which steps: all of it in all of them, or a part of it alone at first.

Parts that start from nothing, as class scores do, send gradients of no use to what feeds them.
Trained alone at first they have all of a unit's clipped gradient, and less noise in it. Whatever
trains, a step's sensitivity and noise are the same, and so is its charge.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from discreet.errors import ConfigurationError


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
    first: Collection[str] | None = None,
    first_steps: int | None = None,
) -> tuple[Stage, ...]:
    """The stages of a run.

    Args:
        parameters: All that trains, by name.
        steps: Planned steps.
        first: Names of what trains alone at first; None where everything does from the start.
        first_steps: For how many steps; a third of all if not given.

    Raises:
        ConfigurationError: The first stage has no steps, leaves none, or trains other things.
    """
    whole = Stage(last_step=steps, parameters=parameters)
    if first is None:
        return (whole,)
    others = set(first) - set(parameters)
    if others or len(first) == len(parameters):
        raise ConfigurationError(
            f"{min(others)} does not train after it" if others else "nothing is added after it",
            where="first_trainable",
            do="name a part of what trainable names, as first_trainable=classes with "
            "trainable=class_film+classes",
        )
    last = steps // 3 if first_steps is None else first_steps
    if not 0 < last < steps:
        raise ConfigurationError(
            f"of {steps} steps it takes {last}",
            where="first_steps",
            do="leave steps for both stages, or leave first_trainable out",
        )
    alone = {name: parameter for name, parameter in parameters.items() if name in set(first)}
    return Stage(last_step=last, parameters=alone), whole
