"""Geometry of the report's charts: numbers in, lines of an SVG out. Words are the templates'."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from discreet.accounting import Event, epsilon_per_prefix, make_accountant
from discreet.statement.figures import most_true_positives
from discreet.statement.schema import PrivacyRecord
from discreet.statement.teaching import events_before, own_events

WIDTH, HEIGHT = 340.0, 240.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 34.0, 332.0, 28.0, 204.0
_SPENDING_POINTS = 32
_TRADE_OFF_POINTS = 64
_SMALL_WIDTH, _SMALL_HEIGHT, _SMALL_EDGE = 120.0, 76.0, 0.5
_STEPS_OF_TICKS = (1.0, 2.0, 2.5, 5.0, 10.0)

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The part of a picture that data is drawn in, and the values at its far edges."""

    left: float
    right: float
    top: float
    bottom: float
    largest_x: float = 1.0
    largest_y: float = 1.0

    def place(self, point: Point) -> Point:
        """Where a pair of values is drawn."""
        x, y = point[0] / self.largest_x, point[1] / self.largest_y
        return (
            round(self.left + x * (self.right - self.left), 1),
            round(self.bottom - y * (self.bottom - self.top), 1),
        )


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A value on an axis.

    Attributes:
        at: Coordinate in the picture.
        value: What stands there.
    """

    at: float
    value: float


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A curve in a frame.

    Attributes:
        frame: Where it is drawn.
        line: The curve, as the `d` of a path.
        area: What is under it, likewise.
        x_ticks: Values along the lower edge.
        y_ticks: Values along the left edge.
        dots: Places on the curve that a table speaks of.
    """

    frame: Frame
    line: str
    area: str
    x_ticks: tuple[Tick, ...] = ()
    y_ticks: tuple[Tick, ...] = ()
    dots: tuple[Point, ...] = ()


def spending_chart(record: PrivacyRecord) -> Chart | None:
    """ε after each of several numbers of steps; None where it has no bound or nothing ran."""
    epsilon, steps = record.claim.epsilon, record.steps.charged
    if not epsilon or not steps:
        return None
    before, events = events_before(record), own_events(record)
    counts = sorted({math.ceil(steps * i / _SPENDING_POINTS) for i in range(_SPENDING_POINTS + 1)})
    spent = epsilon_per_prefix(
        [(*before, *_first(events, count)) for count in counts],
        delta=record.claim.delta,
        accountant=make_accountant(
            record.accountant.name, relation=record.unit.neighboring_relation
        ),
    )
    curve = list(zip(counts, spent, strict=True))
    x_ticks, y_ticks = ticks(float(steps), whole=True), ticks(epsilon)
    frame = _frame(largest_x=float(steps), largest_y=max(epsilon, y_ticks[-1]))
    return _chart(frame, curve, x=x_ticks, y=y_ticks, dots=[(steps, epsilon)])


def trade_off_chart(record: PrivacyRecord) -> Chart | None:
    """Most members found against false alarms; None where there is no bound."""
    attack, profile = record.figures.attack, record.figures.profile
    if attack is None:
        return None
    # Denser towards 0, where the curve is steepest.
    rates = [(i / _TRADE_OFF_POINTS) ** 3 for i in range(_TRADE_OFF_POINTS + 1)]
    curve = [(rate, most_true_positives(profile, rate)) for rate in rates]
    told = [(rate.false_positive_rate, rate.at_most) for rate in attack.true_positive_rates]
    quarters = [0.0, 0.25, 0.5, 0.75, 1.0]
    return _chart(_frame(), curve, x=quarters, y=quarters, dots=told)


def precision_recall_chart(precision: Sequence[float]) -> Chart:
    """Precision against recall, small.

    Args:
        precision: At recalls evenly spaced from 0 to 1.
    """
    last = max(1, len(precision) - 1)
    frame = Frame(
        left=_SMALL_EDGE,
        right=_SMALL_WIDTH - _SMALL_EDGE,
        top=_SMALL_EDGE,
        bottom=_SMALL_HEIGHT - _SMALL_EDGE,
    )
    return _chart(frame, [(i / last, value) for i, value in enumerate(precision)])


def ticks(largest: float, *, whole: bool = False, most: int = 5) -> list[float]:
    """Round values from 0 to at most `largest`, evenly spaced.

    Args:
        largest: Above 0.
        whole: Whole numbers only.
        most: How many, without the 0.
    """
    power = 10.0 ** math.floor(math.log10(largest / most))
    steps = [power * factor for factor in _STEPS_OF_TICKS]
    step = next((s for s in steps if s * most >= largest * (1 - 1e-9)), steps[-1])
    if whole:
        step = float(math.ceil(step))
    return [step * i for i in range(math.floor(largest / step * (1 + 1e-9)) + 1)]


def _first(events: Sequence[Event], steps: int) -> tuple[Event, ...]:
    """The events as they were after so many steps."""
    first: list[Event] = []
    for event in events:
        if steps <= 0:
            break
        first.append(event.with_steps(min(steps, event.steps)))
        steps -= event.steps
    return tuple(first)


def _frame(*, largest_x: float = 1.0, largest_y: float = 1.0) -> Frame:
    return Frame(
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=_BOTTOM,
        largest_x=largest_x,
        largest_y=largest_y,
    )


def _chart(
    frame: Frame,
    curve: Sequence[Point],
    *,
    x: Sequence[float] = (),
    y: Sequence[float] = (),
    dots: Sequence[Point] = (),
) -> Chart:
    placed = [frame.place(point) for point in curve]
    line = "M" + "L".join(f"{px:g} {py:g}" for px, py in placed)
    base = f"{frame.bottom:g}"
    return Chart(
        frame=frame,
        line=line,
        area=f"{line}L{placed[-1][0]:g} {base}L{placed[0][0]:g} {base}Z",
        x_ticks=tuple(Tick(at=frame.place((value, 0))[0], value=value) for value in x),
        y_ticks=tuple(Tick(at=frame.place((0, value))[1], value=value) for value in y),
        dots=tuple(frame.place(dot) for dot in dots),
    )
