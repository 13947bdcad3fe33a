"""The report as one file: pages of both languages, pictures once, no script, no request.

A policy inside the file forbids the browser what the file does not do: to run a script or to
load anything.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from discreet.statement.files import PAGES, RECORD, WEIGHTS
from discreet.statement.page import percent, vocabulary
from discreet.statement.report import charts
from discreet.statement.report.embedding import embed
from discreet.statement.report.tags import place_tags
from discreet.statement.report.validation import ClassCurve, Sample, ValidationFigures
from discreet.statement.schema import PrivacyRecord

_LANGUAGES = {"en": "English", "zh-CN": "中文"}
assert _LANGUAGES.keys() == PAGES.keys()
_MOST_CLASSES = 11
"""Curves of single classes that are drawn; the mean of all is drawn beside them."""
MOST_BYTES = 2_000_000
"""Largest report: pictures that would make it larger are left out, the last first."""


def render_report(record: PrivacyRecord, validation: ValidationFigures | None = None) -> bytes:
    """The report.

    Args:
        record: What is published.
        validation: Figures on public validation images; None where there are none.

    Raises:
        ValueError: There are figures, and the record does not call the images public.
    """
    if validation is not None and record.data.validation.access != "public":
        raise ValueError("a report has no figure of validation images that are not public")
    if validation is not None:
        validation = replace(validation, samples=_fitting(validation.samples))
    groups = [(1, record.claim.epsilon)]
    groups += [(group.size, group.epsilon) for group in record.figures.groups]
    shared: dict[str, Any] = {
        "languages": _LANGUAGES,
        "record_file": RECORD,
        "weights_file": WEIGHTS,
        "attack": record.figures.attack,
        "spending": charts.spending_chart(record),
        "trade_off": charts.trade_off_chart(record),
        "check": record.check,
        "audit": record.audit,
        "validation": validation,
        "classes": () if validation is None else _curves(validation.classes),
        "mean_ap50": 0.0 if validation is None else _mean_ap50(validation.classes),
        "mean": None if validation is None else _mean(validation.classes),
        "groups": groups,
        "largest_group": max(epsilon or 0.0 for _, epsilon in groups),
        "samples": () if validation is None else validation.samples,
    }
    environment = _environment()
    body = environment.get_template("report.body.jinja")
    bodies = {
        language: Markup(
            body.render({**shared, **vocabulary(record, language), "language": language})
        )
        for language in _LANGUAGES
    }
    page = environment.get_template("report.html.jinja")
    return page.render(
        {**shared, "bodies": bodies, "style": Markup(_style()), "tags": place_tags, "embed": embed}
    ).encode()


@cache
def _environment() -> Environment:
    """One for the process: it keeps the compiled templates."""
    environment = Environment(
        loader=PackageLoader("discreet.statement"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["base64"] = _base64
    return environment


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _style() -> str:
    return (
        resources.files("discreet.statement")
        .joinpath("templates", "report.css")
        .read_text(encoding="utf-8")
    )


def _fitting(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """As many samples as half of the report may hold: base64 grows bytes by a third."""
    kept: list[Sample] = []
    room = MOST_BYTES / 2
    for sample in samples:
        room -= len(sample.jpeg) * 4 / 3
        if room < 0:
            break
        kept.append(sample)
    return tuple(kept)


def _mean_ap50(classes: Sequence[ClassCurve]) -> float:
    return sum(curve.ap50 for curve in classes) / max(1, len(classes))


def _mean(classes: Sequence[ClassCurve]) -> charts.Chart | None:
    """The mean of all curves; None where it would be the only one, or there is none."""
    if len(classes) < 2:
        return None
    columns = zip(*(curve.precision for curve in classes), strict=True)
    return charts.precision_recall_chart([sum(column) / len(classes) for column in columns])


def _curves(classes: Sequence[ClassCurve]) -> tuple[tuple[ClassCurve, charts.Chart], ...]:
    """Curves of the most frequent classes, each with its picture."""
    frequent = sorted(classes, key=lambda curve: -curve.objects)[:_MOST_CLASSES]
    return tuple((curve, charts.precision_recall_chart(curve.precision)) for curve in frequent)
