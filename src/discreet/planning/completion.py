"""What was left open, chosen by the recipe, within the time allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from discreet.arguments import PrivacyArguments
from discreet.errors import ConfigurationError
from discreet.planning.cost import StepTime
from discreet.recipes import Chosen, PublicFacts, choose

_ROUNDED_UP = 1.5  # to whole images of a step


def complete(
    arguments: PrivacyArguments,
    *,
    facts: PublicFacts,
    settings: Mapping[str, Any] | None = None,
    begun_with: Mapping[str, Any] | None = None,
    time_of: Callable[[str, int], StepTime] | None = None,
) -> tuple[PrivacyArguments, Chosen]:
    """Let the recipe choose what was left open.

    Args:
        arguments: What the user asked for; complete ones come back as they are.
        facts: Public numbers.
        settings: The other arguments that the user gave, such as `lr0`.
        begun_with: What the recipe chose when the run began, if it goes on.
        time_of: What a step of units takes with these parts training and this zoom; asked where
            `hours` is given.

    Raises:
        ConfigurationError: Not even the shortest run fits into `hours`.
    """
    asked = {**(settings or {}), **arguments.model_dump()}

    def chosen_by(facts: PublicFacts) -> tuple[PrivacyArguments, Chosen]:
        chosen = choose(arguments.recipe, asked, facts=facts, begun_with=begun_with)
        ours = {k: v for k, v in chosen.values().items() if k in PrivacyArguments.model_fields}
        return arguments.model_copy(update=ours), chosen

    made, chosen = chosen_by(facts)
    if arguments.hours is None or time_of is None or begun_with is not None:
        return made, chosen
    # What an image takes is settled by what trains; how many are read is not asked of it.
    assert made.trainable is not None
    images = time_of(made.trainable, made.zoom or 1).images_in(3600 * arguments.hours)
    made, chosen = chosen_by(replace(facts, images_in_time=images))
    assert made.batch is not None
    steps = made.steps or (made.epochs or 1) * facts.population / made.batch
    planned = steps * made.batch * (made.views or 1)
    if planned > _ROUNDED_UP * images:
        raise ConfigurationError(
            f"the shortest run reads {planned:,.0f} images, and about {images:,.0f} fit",
            where=f"hours={arguments.hours:g}",
            do=f"give hours={arguments.hours * planned / images:.2g} or more, or fewer steps",
        )
    return made, chosen
