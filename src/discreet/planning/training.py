"""What a run will do and cost, worked out before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

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
from discreet.config import MechanismConfig, steps_for
from discreet.errors import AccountingError, ConfigurationError
from discreet.planning.completion import complete
from discreet.privacy import NeighboringRelation, PrivacySpent, PrivacyUnit
from discreet.recipes import DEFAULT_IMGSZ, PublicFacts
from discreet.terminal import format_delta, format_epsilon

_DEFAULT_FINAL_NOISE = 0.5


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
