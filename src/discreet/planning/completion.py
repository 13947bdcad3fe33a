"""What was left open, chosen by the recipe, within the time allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from discreet.arguments import PrivacyArguments
from discreet.config import steps_for
from discreet.errors import ConfigurationError
from discreet.planning.cost import StepTime
from discreet.recipes import Chosen, PublicFacts, choose

_EXACT = 1e-3  # of the images that fit


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
    step, allowed = time_of(made.trainable, made.zoom or 1), 3600 * arguments.hours
    if _seconds(made, facts, step) <= allowed:
        return made, chosen

    def with_images(images: float) -> tuple[PrivacyArguments, Chosen]:
        return chosen_by(replace(facts, images_in_time=images))

    # The most images that fit: whatever a step takes, and however numbers are rounded.
    fits, fits_not = 1.0, step.images_in(allowed) + 1
    made, chosen = with_images(fits)
    if (least := _seconds(made, facts, step)) > allowed:
        raise ConfigurationError(
            f"the shortest run takes about {_format(least / 3600)} hours",
            where=f"hours={arguments.hours:g}",
            do=f"give hours={math.ceil(1000 * least / 3600) / 1000:g} or more{_shorter(arguments)}",
        )
    while fits_not - fits > max(1.0, _EXACT * fits):
        images = (fits + fits_not) / 2
        tried = with_images(images)
        if _seconds(tried[0], facts, step) <= allowed:
            fits, (made, chosen) = images, tried
        else:
            fits_not = images
    return made, chosen


def _seconds(made: PrivacyArguments, facts: PublicFacts, step: StepTime) -> float:
    """What a run takes whose images are each read for the first time."""
    assert made.batch is not None
    steps = made.steps or steps_for(
        epochs=made.epochs or 1, population=facts.population, expected_batch_size=made.batch
    )
    return step.seconds(steps=steps, expected_images=made.batch * (made.views or 1))


def _shorter(arguments: PrivacyArguments) -> str:
    """What of that which was given makes a run longer."""
    given = {"a smaller batch": arguments.batch, "fewer steps": arguments.steps}
    shorter = [words for words, value in given.items() if value is not None]
    return "".join(f", or {words}" for words in shorter or ["steps= of your own"])


def _format(hours: float) -> str:
    """0.0123, 1.2, 1,234: two digits, or all whole ones."""
    return f"{hours:.2g}" if hours < 100 else f"{hours:,.0f}"
