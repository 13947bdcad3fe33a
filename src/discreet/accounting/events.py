"""What ran, said once and for all: immutable events that accountants turn into ε.

An event is a public fact about the mechanism. It holds nothing that was drawn and nothing about
an accountant, and it is written to the ledger and to the release as JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Protocol, Self

import dp_accounting

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

    def to_dp_event(self) -> dp_accounting.DpEvent:
        """The event in dp-accounting's vocabulary, noise relative to the sensitivity."""
        ...

    def to_json(self) -> dict[str, object]:
        """Plain numbers and strings under their own names, `kind` among them."""
        ...


@dataclass(frozen=True, kw_only=True)
class PoissonSampledGaussian:
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
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        _validate.sample_rate(self.sample_rate)
        _validate.non_negative(noise_multiplier=self.noise_multiplier, steps=self.steps)
        if not isinstance(self.steps, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"expected steps a whole number, got steps={self.steps!r}", where="steps"
            )

    def with_steps(self, steps: int) -> Self:
        """The same mechanism, run `steps` steps."""
        return dataclasses.replace(self, steps=steps)

    def to_dp_event(self) -> dp_accounting.DpEvent:
        """No-op, or the self-composition of one (Poisson-sampled) Gaussian step."""
        if self.steps == 0:
            return dp_accounting.NoOpDpEvent()
        step = dp_accounting.GaussianDpEvent(self.noise_multiplier)
        if self.sample_rate < 1:
            step = dp_accounting.PoissonSampledDpEvent(self.sample_rate, step)
        return dp_accounting.SelfComposedDpEvent(step, self.steps)

    def to_json(self) -> dict[str, object]:
        """`kind` and the three attributes."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


def _read_poisson_sampled_gaussian(fields: Mapping[str, object]) -> PoissonSampledGaussian:
    _refuse_other_keys(fields, {"sample_rate", "noise_multiplier", "steps"})
    return PoissonSampledGaussian(
        sample_rate=_number(fields, "sample_rate"),
        noise_multiplier=_number(fields, "noise_multiplier"),
        steps=_whole(fields, "steps"),
    )


_READERS: Mapping[str, Callable[[Mapping[str, object]], Event]] = MappingProxyType(
    {PoissonSampledGaussian.kind: _read_poisson_sampled_gaussian}
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
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise _unreadable(f"unknown kind {kind!r}; known are {', '.join(sorted(_READERS))}")
    try:
        return reader({key: value for key, value in data.items() if key != "kind"})
    except ConfigurationError as error:
        raise _unreadable(error.what) from error


def merge(events: Iterable[Event]) -> tuple[Event, ...]:
    """Events in order, steps of equal neighbours added up, events of no steps left out."""
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
