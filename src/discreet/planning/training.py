"""What a run will do and cost, worked out before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from discreet.accounting import (
    Event,
    calibrate_noise_multiplier,
    default_delta,
    epsilon_per_prefix,
)
from discreet.accounting.calibration import MAX_NOISE_MULTIPLIER
from discreet.arguments import PrivacyArguments
from discreet.arguments.problems import gather
from discreet.arguments.stages import stage_problems
from discreet.config import MechanismConfig, SamplingName, steps_for
from discreet.errors import AccountingError, ConfigurationError
from discreet.planning.cost import StepTime
from discreet.privacy import NeighboringRelation, PrivacySpent, PrivacyUnit
from discreet.recipes import DEFAULT_IMGSZ, Chosen, PublicFacts, choose
from discreet.terminal import format_delta, format_epsilon

# Above this an attacker's odds may grow more than 20,000-fold: no privacy to speak of.
MEANINGLESS_EPSILON = 10.0
_DEFAULT_FINAL_NOISE = 0.5
_ROUNDED_UP = 1.5  # to whole images of a step
_NEARLY_ALL = 0.9  # of ε, spent by a teacher: what is left drowns whatever the images say
_SAMPLING: Mapping[SamplingName, str] = {
    "poisson": "Poisson",
    "truncated_poisson": "Poisson, cut",
    "shuffle": "shuffled: accounted without amplification",
}


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A mechanism together with what it promises.

    Attributes:
        mechanism: What the guarantee depends on.
        target_epsilon: The ε asked for; None where the noise multiplier was given.
        promised: The guarantee after all steps.
        epochs: Expected passes over the data, rounded up.
        before: What a private teacher had spent, which the promise covers too.
    """

    mechanism: MechanismConfig
    target_epsilon: float | None
    promised: PrivacySpent
    epochs: int
    before: tuple[Event, ...] = ()

    @classmethod
    def of(
        cls,
        mechanism: MechanismConfig,
        *,
        target_epsilon: float | None,
        before: Sequence[Event] = (),
    ) -> Self:
        """The plan that runs `mechanism` to its end."""
        passes = mechanism.steps * mechanism.sample_rate
        events = (*before, *mechanism.planned_events())
        epsilon = mechanism.make_accountant().epsilon(events, delta=mechanism.delta)
        return cls(
            mechanism=mechanism,
            target_epsilon=target_epsilon,
            promised=PrivacySpent(epsilon=epsilon, delta=mechanism.delta),
            epochs=math.ceil(passes - 1e-9),
            before=tuple(before),
        )

    def spent_before(self) -> float:
        """ε of what a private teacher had spent, alone; 0 without one."""
        if not self.before:
            return 0.0
        mechanism = self.mechanism
        return mechanism.make_accountant().epsilon(self.before, delta=mechanism.delta)

    def epoch_of(self, step: int) -> int:
        """The epoch, from 1, that the `step`-th step, from 1, belongs to."""
        passes = step * self.mechanism.expected_batch_size / self.mechanism.population
        return min(self.epochs, max(1, math.ceil(passes - 1e-9)))

    def last_step_of(self, epoch: int) -> int:
        """The last step, from 1, of an epoch, from 1."""
        if epoch >= self.epochs:
            return self.mechanism.steps
        per_epoch = self.mechanism.population / self.mechanism.expected_batch_size
        return min(self.mechanism.steps, math.floor(epoch * per_epoch + 1e-9))

    def epsilon_by_epoch(self) -> dict[int, float]:
        """ε after each epoch, from 1; at the last one, the promise."""
        epochs = range(1, self.epochs + 1)
        values = epsilon_per_prefix(
            [
                (*self.before, *self.mechanism.planned_events(self.last_step_of(epoch)))
                for epoch in epochs
            ],
            delta=self.mechanism.delta,
            accountant=self.mechanism.make_accountant(),
        )
        return dict(zip(epochs, values, strict=True))


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


def plan_training(
    arguments: PrivacyArguments, *, population: int, before: Sequence[Event] = ()
) -> TrainingPlan:
    """Fill in what was left open, calibrate the noise, and compute the promise.

    Args:
        arguments: What the user asked for.
        population: Number of privacy units in the training set.
        before: What a private teacher had spent: the ε asked for covers both.

    Raises:
        ConfigurationError: If the batch is larger than the population, the first stage is of
            other parts or takes no steps or all, or the teacher alone has spent what was asked
            for.
        AccountingError: If no noise multiplier reaches the target, as where the count of adaptive
            clipping alone spends more.
    """
    facts = PublicFacts(
        population=population,
        pretrained=True,
        imgsz=DEFAULT_IMGSZ,
        epsilon=arguments.epsilon,
        delta=arguments.delta,
    )
    arguments, _ = complete(arguments, facts=facts)
    batch = arguments.batch
    assert batch is not None and arguments.clipping is not None
    noun = "training images" if arguments.unit is PrivacyUnit.IMAGE else "privacy units"
    if arguments.largest_batch is not None and arguments.largest_batch < batch:
        raise ConfigurationError(
            f"the cap {arguments.largest_batch} is below the expected batch size {batch}",
            where="largest_batch",
            do=f"use largest_batch={math.ceil(1.2 * batch)} or more",
        )
    if batch > population:
        raise ConfigurationError(
            f"the expected batch size {batch} is more than the {population} {noun}",
            where="batch",
            do=f"use batch={population} or less",
        )
    delta = arguments.delta if arguments.delta is not None else default_delta(population)
    steps = arguments.steps
    if steps is None:
        assert arguments.epochs is not None
        steps = steps_for(epochs=arguments.epochs, population=population, expected_batch_size=batch)
    _check_first_stage(arguments, steps=steps)
    clipping = arguments.clipping
    scheduled = arguments.noise_schedule != "constant"

    def mechanism_with(noise_multiplier: float) -> MechanismConfig:
        return MechanismConfig(
            population=population,
            expected_batch_size=batch,
            steps=steps,
            noise_multiplier=noise_multiplier,
            max_grad_norm=arguments.max_grad_norm,
            delta=delta,
            clipping=clipping,
            accountant=arguments.accountant,
            unit=arguments.unit,
            max_images_per_unit=arguments.images_of_a_unit,
            relation=NeighboringRelation(arguments.relation),
            sampling=arguments.sampling,
            largest_batch=arguments.largest_batch,
            noise_schedule=arguments.noise_schedule,
            final_noise=(arguments.final_noise or _DEFAULT_FINAL_NOISE) if scheduled else 1.0,
        )

    noise_multiplier = arguments.noise_multiplier
    if noise_multiplier is None:
        assert arguments.epsilon is not None
        accountant = mechanism_with(1.0).make_accountant()
        spent = accountant.epsilon(before, delta=delta)
        if spent >= arguments.epsilon:
            raise ConfigurationError(
                f"the teacher alone has spent ε = {format_epsilon(spent)} "
                f"at δ = {format_delta(delta)}, and passes it on",
                where=f"epsilon={arguments.epsilon:g}",
                do="ask for a larger epsilon, or take a public teacher",
            )
        _check_count(
            mechanism_with(MAX_NOISE_MULTIPLIER), before=before, target_epsilon=arguments.epsilon
        )
        noise_multiplier = calibrate_noise_multiplier(
            target_epsilon=arguments.epsilon,
            delta=delta,
            events=lambda sigma: (*before, *mechanism_with(sigma).planned_events()),
            accountant=accountant,
        )
    return TrainingPlan.of(
        mechanism_with(noise_multiplier), target_epsilon=arguments.epsilon, before=before
    )


def _check_count(
    mechanism: MechanismConfig, *, before: Sequence[Event], target_epsilon: float
) -> None:
    """Refuse adaptive clipping whose count alone spends more than was asked for.

    The count's noise is a part of B, and so no σ makes up for a small batch.

    Args:
        mechanism: The run with the largest σ.
        before: What a private teacher had spent.
        target_epsilon: The ε asked for.
    """
    if mechanism.clipping != "adaptive":
        return
    events = (*before, *mechanism.planned_events())
    spent = mechanism.make_accountant().epsilon(events, delta=mechanism.delta)
    if spent > target_epsilon:
        batch, noun = mechanism.expected_batch_size, mechanism.unit.noun
        larger = "a larger batch, or " if batch < mechanism.population else ""
        raise AccountingError(
            f"each step also tells how many {noun}s were not clipped, with noise of "
            f"{mechanism.count_noise_multiplier:g} {noun}s at batch={batch}: that "
            f"brings ε to {format_epsilon(spent)} at δ = {format_delta(mechanism.delta)}, "
            f"above {target_epsilon:g}, however large the noise on the gradients",
            where="clipping=adaptive",
            do=f"take {larger}another clipping, such as automatic",
        )


def _check_first_stage(arguments: PrivacyArguments, *, steps: int) -> None:
    """Refuse a first stage that cannot be, before any model is built."""
    if arguments.first_trainable is None or arguments.trainable is None:
        return
    if problems := stage_problems(
        arguments.first_trainable,
        trainable=arguments.trainable,
        steps=steps,
        first_steps=arguments.first_steps,
    ):
        raise gather(problems)


def recipe_rows(chosen: Chosen) -> list[tuple[str, str]]:
    """What the recipe chose, and why, as short rows of name and value, for people."""
    return [
        (choice.setting, f"{choice.value}: {choice.why}")
        for choice in chosen.choices
        if choice.why is not None
    ]


def plan_rows(plan: TrainingPlan, *, trainable: str, parameters: int) -> list[tuple[str, str]]:
    """The plan as short rows of name and value, for people."""
    mechanism = plan.mechanism
    epsilon = format_epsilon(plan.promised.epsilon)
    asked = "" if plan.target_epsilon is None else f" (asked: {plan.target_epsilon:g})"
    change = "replace" if mechanism.relation is NeighboringRelation.REPLACE_ONE else "add or remove"
    return [
        population_row(mechanism),
        ("expected batch size B", f"{mechanism.expected_batch_size:,}"),
        ("sample rate q = B/n", f"{mechanism.sample_rate:.4g}, {sampling_of(mechanism)}"),
        ("steps", f"{mechanism.steps:,} ({plan.epochs} epochs)"),
        ("noise multiplier σ", noise_of(mechanism)),
        ("max grad norm C", f"{mechanism.max_grad_norm:g}, {mechanism.clipping}"),
        ("trained", f"{trainable}: {parameters:,} parameters"),
        ("will end at ε", f"{epsilon}{asked} at δ = {format_delta(mechanism.delta)}"),
        (
            "neighbours",
            f"{change} one {mechanism.unit.noun}, {mechanism.accountant.upper()} accountant",
        ),
    ]


def population_row(mechanism: MechanismConfig) -> tuple[str, str]:
    """How many units there are, and what a unit is, for people."""
    n = f"{mechanism.population:,}"
    if mechanism.unit is PrivacyUnit.IMAGE:
        return "training images n", n
    return (
        "privacy units n",
        f"{n} {'group' if mechanism.population == 1 else 'groups'} of images; of a drawn one at "
        f"most {mechanism.max_images_per_unit} images, chosen at random, count as one",
    )


def sampling_of(mechanism: MechanismConfig) -> str:
    """How units are drawn, for people."""
    if mechanism.sample_rate == 1:
        return f"every {mechanism.unit.noun} in every step"
    cap = "" if mechanism.largest_batch is None else f" at {mechanism.largest_batch:,}"
    return _SAMPLING[mechanism.sampling] + cap


def noise_of(mechanism: MechanismConfig) -> str:
    """σ, or its first and last value, for people."""
    if mechanism.noise_schedule == "constant":
        return f"{mechanism.noise_multiplier:.5g}"
    last = mechanism.noise_multiplier_at(mechanism.steps)
    return f"{mechanism.noise_multiplier:.5g} to {last:.5g}, {mechanism.noise_schedule}"


def noise_to_signal(mechanism: MechanismConfig, *, parameters: int) -> float:
    """σ √P / (B √T): how far the noise drowns what the images can say; above 1, altogether.

    Over the whole run, the norm of the noise in the mean gradient, σ C √P / (B √T), is compared
    with the largest signal that clipping lets through, C.

    Args:
        mechanism: The run.
        parameters: Number P of trained coordinates.
    """
    noise = mechanism.noise_multiplier * math.sqrt(parameters)
    return noise / (mechanism.expected_batch_size * math.sqrt(mechanism.steps))


def plan_warnings(plan: TrainingPlan, *, parameters: int, secure: bool) -> list[str]:
    """Plain words on what makes this plan useless or not private.

    Useless is a run whose `noise_to_signal` is above 1.

    Args:
        plan: The plan.
        parameters: Number P of trained coordinates.
        secure: Whether the random source is.
    """
    mechanism, epsilon = plan.mechanism, plan.promised.epsilon
    noun = mechanism.unit.noun
    warnings: list[str] = []
    if not secure:
        warnings.append("insecure_seed is set: anyone can subtract the noise. NOT PRIVATE.")
    if mechanism.noise_multiplier == 0:
        warnings.append("noise_multiplier=0 adds no noise. NOT PRIVATE.")
    elif epsilon > MEANINGLESS_EPSILON:
        warnings.append(
            f"ε = {epsilon:.1f} is no privacy to speak of: {mechanism.population:,} {noun}s, "
            f"σ = {mechanism.noise_multiplier:g}, {mechanism.steps:,} steps at q = "
            f"{mechanism.sample_rate:.3g}. Use more {noun}s, fewer steps, or ask for epsilon=8."
        )
    if mechanism.delta >= 1 / mechanism.population:
        warnings.append(
            f"δ = {mechanism.delta:g} is not below 1/n: publishing one {noun} in the open "
            "would satisfy it."
        )
    ratio = noise_to_signal(mechanism, parameters=parameters)
    spent = plan.spent_before()
    if spent > _NEARLY_ALL * epsilon and mechanism.noise_multiplier > 0:
        drowned = (
            f": over the whole run the noise is {ratio:.1f} times larger than anything the images "
            "can say"
            if ratio > 1
            else ""
        )
        warnings.append(
            f"the teacher has spent nearly all of the ε asked for: {format_epsilon(spent)} of "
            f"{format_epsilon(epsilon)}. Hardly anything is left for this run{drowned}. Ask for a "
            "larger epsilon, or take a teacher that has spent less, or a public one."
        )
    elif ratio > 1:
        warnings.append(
            f"{mechanism.population:,} {noun}s are too few for this request: over the whole run "
            f"the noise is {ratio:.1f} times larger than anything the images can say. "
            f"Expect a detector worse than the one you start from. Use more {noun}s, a larger "
            "batch, or train fewer parameters."
        )
    return warnings
