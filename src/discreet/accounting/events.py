"""What ran, said once and for all: immutable events that accountants turn into ε.

An event is a public fact about the mechanism. It holds nothing that was drawn and nothing about
an accountant, and it is written to the ledger and to the release as JSON.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Protocol, Self, cast

import dp_accounting
from dp_accounting.dp_event import TruncatedSubsampledGaussianDpEvent

from discreet import _validate
from discreet.errors import AccountingError, ConfigurationError


class Event(Protocol):
    """A mechanism that ran some number of steps. Hashable; equal if the same thing ran."""

    kind: ClassVar[str]
    """Name of the kind in JSON."""

    @property
    def steps(self) -> int:
        """How many steps it ran, each composed on its own."""
        ...

    def with_steps(self, steps: int) -> Self:
        """The same mechanism, run that many steps."""
        ...

    def ended(self) -> Self:
        """The event as it counts beside those of other runs: what it had begun, in full."""
        ...

    def to_dp_event(self) -> dp_accounting.DpEvent:
        """The event in dp-accounting's vocabulary, noise relative to the sensitivity."""
        ...

    def to_json(self) -> dict[str, object]:
        """Plain numbers and strings under their own names, `kind` among them."""
        ...


@dataclass(frozen=True, kw_only=True)
class _GaussianSteps:
    """What all events share: noise, a number of steps, and plain JSON."""

    kind: ClassVar[str]

    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        _validate.non_negative(noise_multiplier=self.noise_multiplier, steps=self.steps)
        _refuse_fractions(steps=self.steps)

    def with_steps(self, steps: int) -> Self:
        """The same mechanism, run `steps` steps."""
        return dataclasses.replace(self, steps=steps)

    def ended(self) -> Self:
        """Itself: each step is complete."""
        return self

    def to_json(self) -> dict[str, object]:
        """`kind` and the attributes."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclass(frozen=True, kw_only=True)
class PoissonSampledGaussian(_GaussianSteps):
    """Steps of the Gaussian mechanism on Poisson samples: plain DP-SGD.

    In each step every unit is drawn independently with probability `sample_rate`, and Gaussian
    noise is added to the sum of the contributions (Abadi et al. 2016, Algorithm 1).

    Attributes:
        sample_rate: Probability q of a unit to be drawn, in (0, 1]; 1 is the full batch, which
            is the Gaussian mechanism without amplification.
        noise_multiplier: Standard deviation of the noise over the L2 bound on the change when
            one unit is added or removed. 0 is allowed and has ε = ∞.
        steps: Number of steps, 0 for none.
    """

    kind: ClassVar[str] = "poisson_sampled_gaussian"

    sample_rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _validate.sample_rate(self.sample_rate)

    def to_dp_event(self) -> dp_accounting.DpEvent:
        """No-op, or the self-composition of one (Poisson-sampled) Gaussian step."""
        return _poisson(self.sample_rate, self.noise_multiplier, self.steps)


@dataclass(frozen=True, kw_only=True)
class TruncatedPoissonSampledGaussian(_GaussianSteps):
    """Steps on Poisson samples cut down to a largest size.

    In each step every unit is drawn independently with probability `sample_rate`; of more than
    `largest_batch` drawn units, a uniformly random subset of that size is kept (Ganesh et al.
    2025, arXiv 2508.15089, section 4). A unit that is drawn may displace another, so that
    adding one moves a cut sum by up to twice its bound. Only the pld accountant knows it.

    Attributes:
        sample_rate: Probability q of a unit to be drawn, before the cut, in (0, 1].
        noise_multiplier: Standard deviation of the noise over the L2 bound on one unit's
            contribution.
        steps: Number of steps, 0 for none.
        population: Number of units n that are drawn from.
        largest_batch: Most units that one step keeps, at least 1.
    """

    kind: ClassVar[str] = "truncated_poisson_sampled_gaussian"

    sample_rate: float
    population: int
    largest_batch: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _validate.sample_rate(self.sample_rate)
        _validate.positive_int(population=self.population, largest_batch=self.largest_batch)
        _refuse_fractions(population=self.population, largest_batch=self.largest_batch)

    def to_dp_event(self) -> dp_accounting.DpEvent:
        """No-op, or the self-composition of one truncated step."""
        if self.steps == 0:
            return dp_accounting.NoOpDpEvent()
        step = TruncatedSubsampledGaussianDpEvent(
            dataset_size=self.population,
            sampling_probability=self.sample_rate,
            truncated_batch_size=self.largest_batch,
            noise_multiplier=self.noise_multiplier,
        )
        return dp_accounting.SelfComposedDpEvent(step, self.steps)


@dataclass(frozen=True, kw_only=True)
class ShuffledGaussian(_GaussianSteps):
    """Steps on the batches of a shuffled epoch, accounted without amplification.

    Each epoch deals every unit to one of its `steps_per_epoch` batches, uniformly and
    independently of all others. Removing a unit leaves every other one where it was, so an epoch
    is one Gaussian step in which the unit takes part, hidden among the batches: its loss is at
    most that of the Gaussian mechanism (joint convexity). No better bound is claimed.

    The first step counted is the first of an epoch. Where an epoch was broken off and the next
    step begins a new one, charge `rest_of_epoch` in between: a unit may be dealt to both.

    Attributes:
        noise_multiplier: Standard deviation of the noise over the L2 bound on the change when
            one unit is added or removed. 0 is allowed and has ε = ∞.
        steps_per_epoch: Number of batches that an epoch deals its units to.
        steps: Number of steps, 0 for none; a last epoch that is not whole counts as one.
    """

    kind: ClassVar[str] = "shuffled_gaussian"

    steps_per_epoch: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _validate.positive_int(steps_per_epoch=self.steps_per_epoch)
        _refuse_fractions(steps_per_epoch=self.steps_per_epoch)

    @property
    def epochs(self) -> int:
        """How often a unit may have taken part: the epochs begun."""
        return -(-self.steps // self.steps_per_epoch)

    @property
    def rest_of_epoch(self) -> Self:
        """The steps that are missing to the end of the last epoch; none where it is whole."""
        return self.with_steps(-self.steps % self.steps_per_epoch)

    def ended(self) -> Self:
        """With its last epoch in full: another run deals its units anew."""
        return self.with_steps(self.steps + self.rest_of_epoch.steps)

    def to_dp_event(self) -> dp_accounting.DpEvent:
        """No-op, or one Gaussian step for each epoch begun."""
        return _poisson(1.0, self.noise_multiplier, self.epochs)


@dataclass(frozen=True, kw_only=True)
class AdaptivelyClippedGaussian(_GaussianSteps):
    """Poisson-sampled steps that also publish how many units were left unclipped.

    Each step publishes the noisy sum of the contributions and, of the same sample, the noisy sum
    of +1/2 for each unit that was not clipped and -1/2 for each that was, from which the next
    bound follows. Both together are one Gaussian step with noise multiplier z, where
    z⁻² = z_Δ⁻² + (2 σ_b)⁻² (Andrew et al. 2021, Theorem 1).

    Attributes:
        sample_rate: Probability q of a unit to be drawn, in (0, 1].
        noise_multiplier: z_Δ, the standard deviation of the noise on the sum over the L2 bound
            on one unit's contribution.
        count_noise_multiplier: σ_b, the standard deviation of the noise on the count, in units:
            a unit's contribution to it is ±1/2.
        steps: Number of steps, 0 for none.
    """

    kind: ClassVar[str] = "adaptively_clipped_gaussian"

    sample_rate: float
    count_noise_multiplier: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _validate.sample_rate(self.sample_rate)
        _validate.non_negative(count_noise_multiplier=self.count_noise_multiplier)

    @property
    def combined_noise_multiplier(self) -> float:
        """z, the noise multiplier of sum and count together; 0 if either has no noise."""
        if self.noise_multiplier == 0 or self.count_noise_multiplier == 0:
            return 0.0
        return 1 / math.hypot(1 / self.noise_multiplier, 1 / (2 * self.count_noise_multiplier))

    def to_dp_event(self) -> dp_accounting.DpEvent:
        """No-op, or the self-composition of one step with the combined noise."""
        return _poisson(self.sample_rate, self.combined_noise_multiplier, self.steps)


_KINDS: Mapping[str, type[_GaussianSteps]] = MappingProxyType(
    {
        kind.kind: kind
        for kind in (
            PoissonSampledGaussian,
            TruncatedPoissonSampledGaussian,
            ShuffledGaussian,
            AdaptivelyClippedGaussian,
        )
    }
)


def _poisson(sample_rate: float, noise_multiplier: float, steps: int) -> dp_accounting.DpEvent:
    if steps == 0:
        return dp_accounting.NoOpDpEvent()
    step = dp_accounting.GaussianDpEvent(noise_multiplier)
    if sample_rate < 1:
        step = dp_accounting.PoissonSampledDpEvent(sample_rate, step)
    return dp_accounting.SelfComposedDpEvent(step, steps)


def _refuse_fractions(**values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"expected {name} a whole number, got {name}={value!r}", where=name
            )


def event_from_json(data: Mapping[str, object]) -> Event:
    """Read back what `Event.to_json` wrote.

    Raises:
        AccountingError: If the kind is unknown, a key is missing or unknown, or a value is of
            the wrong type or out of range. An event that is not understood is never guessed.
    """
    if not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _unreadable(f"expected an object, got {type(data).__name__}")
    kind = data.get("kind")
    event = _KINDS.get(kind) if isinstance(kind, str) else None
    if event is None:
        raise _unreadable(f"unknown kind {kind!r}; known are {', '.join(sorted(_KINDS))}")
    types = {field.name: field.type for field in dataclasses.fields(event)}
    values = {key: value for key, value in data.items() if key != "kind"}
    _refuse_other_keys(values, set(types))
    try:
        return cast(
            Event,
            event(
                **{
                    key: _whole(values, key) if types[key] == "int" else _number(values, key)
                    for key in types
                }  # pyright: ignore[reportArgumentType]
            ),
        )
    except ConfigurationError as error:
        raise _unreadable(error.what) from error


def merge(events: Iterable[Event]) -> tuple[Event, ...]:
    """Events of one run in order, steps of equal neighbours added up, those of none left out.

    Of several runs, each event is `ended()` first.
    """
    merged: list[Event] = []
    for event in events:
        if event.steps == 0:
            continue
        if merged and merged[-1].with_steps(0) == event.with_steps(0):
            merged[-1] = event.with_steps(merged[-1].steps + event.steps)
        else:
            merged.append(event)
    return tuple(merged)


def _unreadable(why: str) -> AccountingError:
    return AccountingError(
        f"not an event that can be accounted: {why}",
        do="use the version of this program that wrote it",
    )


def _refuse_other_keys(fields: Mapping[str, object], expected: set[str]) -> None:
    missing, unknown = expected - fields.keys(), fields.keys() - expected
    if missing or unknown:
        problems = [f"missing {key!r}" for key in sorted(missing)]
        problems += [f"unknown key {key!r}" for key in sorted(map(str, unknown))]
        raise _unreadable(", ".join(problems))


def _number(fields: Mapping[str, object], key: str) -> float:
    value = fields[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unreadable(f"expected {key} a number, got {key}={value!r}")
    return float(value)


def _whole(fields: Mapping[str, object], key: str) -> int:
    value = fields[key]
    if isinstance(value, bool) or not isinstance(value, int):
        raise _unreadable(f"expected {key} a whole number, got {key}={value!r}")
    return value
