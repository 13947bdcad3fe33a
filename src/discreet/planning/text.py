"""A plan as plain text for a person."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from discreet.planning.table import Cell
from discreet.planning.verdict import one_decimal, two_decimals
from discreet.planning.wording import noise_of, population_row, recipe_rows, sampling_of
from discreet.terminal import SMALL_EPSILON, format_delta, small_number

if TYPE_CHECKING:
    from discreet.planning.report import Plan

_NAME = 22
_UNKNOWN = "–"  # no answer, or not measured


def as_text(plan: Plan, *, width: int) -> str:
    """The whole plan.

    Args:
        plan: The plan.
        width: Columns; the table needs 78 of them and is not folded below that.
    """
    sections = [
        _fill(plan.verdict, width),
        "",
        "This run",
        *_rows(_run(plan), width),
        "",
        f"What it spends at δ = {format_delta(plan.training.mechanism.delta)}",
        *_rows(_spent(plan), width),
        "",
        "Other batch sizes and epochs (> is this run)",
        *_table(plan.table),
        "",
        f"Chosen by recipe={plan.chosen.recipe}, from public numbers only",
        *_rows(recipe_rows(plan.chosen), width),
        "",
        "Advice",
        *_rows(((advice.about, advice.text) for advice in plan.advice), width),
        *(_fill(f"Note: {note}", width) for note in plan.figures.notes),
        "",
        "Nothing was spent.",
    ]
    return "\n".join(sections)


def _run(plan: Plan) -> list[tuple[str, str]]:
    mechanism = plan.training.mechanism
    sigma, batch = mechanism.noise_multiplier, mechanism.expected_batch_size
    noun = mechanism.unit.noun
    rows = [
        population_row(mechanism),
        ("expected batch B", f"{batch:,}"),
        ("sample rate q = B/n", f"{mechanism.sample_rate:.4g}, {sampling_of(mechanism)}"),
        ("steps", f"{mechanism.steps:,} ({plan.epochs:g} epoch{'' if plan.epochs == 1 else 's'})"),
        ("noise multiplier σ", noise_of(mechanism)),
        ("noise σ/B", f"{sigma / batch:.3g} per coordinate, beside a clipped {noun}'s 1"),
        ("max grad norm C", f"{mechanism.max_grad_norm:g}, {mechanism.clipping}"),
        ("trained", plan.trainable),
    ]
    if plan.images_per_unit is not None:
        images = f"{batch * plan.images_per_unit:,.1f} expected in a step"
        rows.insert(2, ("images", f"{plan.images:,}, {images}"))
    if plan.time is not None:
        time = plan.time
        rows.append(
            (
                "expected time",
                f"{duration(plan.seconds)} on this machine ({time.device}, {time.model} at "
                f"{time.imgsz} px, {time.seconds_per_image:.2g} s an image), without validation",
            )
        )
    return rows


def _spent(plan: Plan) -> list[tuple[str, str]]:
    figures, noun = plan.figures, plan.training.mechanism.unit.noun
    named = zip(("PLD", "RDP", "PRV"), ("pld", "rdp", "prv"), strict=True)
    accountants = ", ".join(f"{_epsilon(figures.epsilon[key])} ({name})" for name, key in named)
    groups = ", ".join(
        f"{_epsilon(value)} ({size} {noun}s)" for size, value in figures.groups.items()
    )
    epochs = ", ".join(f"{_epsilon(value)} ({epoch})" for epoch, value in figures.per_epoch.items())
    return [
        ("ε", f"{accountants}: add or remove one {noun}"),
        ("ε, replace one", f"{_epsilon(figures.replace_one)} (PLD)"),
        ("ε, groups", groups),
        (
            "ε, no sampling",
            f"{_epsilon(figures.without_sampling)} with a shuffled loader in place of Poisson "
            "sampling: never the figures above",
        ),
        ("ε after epoch", epochs),
    ]


def _table(cells: Sequence[Cell]) -> list[str]:
    head = ("", "B", "q", "epochs", "steps", "σ", "σ/B", "time", "PLD", "RDP", "PRV")
    widths = (1, 6, 8, 6, 8, 6, 8, 8, 6, 6, 6)
    lines = [_line(head, widths)]
    for number, cell in enumerate(cells):
        if number and cell.expected_batch_size != cells[number - 1].expected_batch_size:
            lines.append("")
        lines.append(
            _line(
                (
                    ">" if cell.requested else "",
                    _whole(cell.expected_batch_size),
                    f"{cell.sample_rate:.3g}",
                    f"{cell.epochs:.4g}",
                    _whole(cell.steps),
                    _UNKNOWN if cell.noise_multiplier is None else f"{cell.noise_multiplier:.3g}",
                    _UNKNOWN
                    if cell.noise_per_coordinate is None
                    else f"{cell.noise_per_coordinate:.2g}",
                    duration(cell.seconds),
                    *(_short(cell.epsilon[name]) for name in ("pld", "rdp", "prv")),
                ),
                widths,
            )
        )
    return lines


def _line(values: Iterable[str], widths: Iterable[int]) -> str:
    return " ".join(value.rjust(size) for value, size in zip(values, widths, strict=True)).rstrip()


def _epsilon(value: float | None) -> str:
    return _UNKNOWN if value is None else two_decimals(value)


def _whole(number: int) -> str:
    return str(number) if number < 10**6 else f"{number:.0e}"


def _short(value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    if 0 < value < SMALL_EPSILON:
        return small_number(value, digits=1)  # a column has room for no more
    if 100 <= value < 1e5:
        return f"{math.ceil(value)}"
    return ">1e5" if 1e5 <= value < math.inf else one_decimal(value)


def duration(seconds: float | None) -> str:
    """Seconds in the largest fitting unit: 40 s, 12 min, 3.4 h, 15 d."""
    if seconds is None:
        return _UNKNOWN
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            count = seconds / size
            return f"{count:.1f} {unit}" if count < 10 and unit != "min" else f"{count:,.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1g} s"


def _rows(rows: Iterable[tuple[str, str]], width: int) -> list[str]:
    return [
        textwrap.fill(
            value,
            width=width,
            initial_indent=f"  {name}".ljust(_NAME) + " ",
            subsequent_indent=" " * (_NAME + 1),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, value in rows
    ]


def _fill(text: str, width: int) -> str:
    return textwrap.fill(text, width=width, break_long_words=False, break_on_hyphens=False)
