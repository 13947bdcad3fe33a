"""The figures inside a report, for whoever wants to draw it again and compare.

A report is a function of the record and of the validation figures. It carries the latter in an
attribute, and their pictures once, so that a stranger can repeat it byte by byte: what it says
cannot differ from what the record says.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import re

from pydantic import TypeAdapter

from discreet.statement.report.validation import ValidationFigures

_ATTRIBUTE = re.compile(r'<body data-validation="([^"]*)">')
_PICTURE = re.compile(r'href="data:image/jpeg;base64,([A-Za-z0-9+/=]*)"')
_FIGURES = TypeAdapter(ValidationFigures)


def embed(figures: ValidationFigures) -> str:
    """Figures without their pictures, as JSON."""
    facts = dataclasses.asdict(figures)
    for sample in facts["samples"]:
        sample["jpeg"] = ""
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))


def extract(report: str) -> ValidationFigures | None:
    """The figures of a report, with their pictures; None where it has none.

    Raises:
        ValueError: They are not in the form in which `embed` writes them.
    """
    found = _ATTRIBUTE.search(report)
    if found is None:
        return None
    figures = _FIGURES.validate_json(html.unescape(found[1]))
    pictures = [base64.b64decode(data, validate=True) for data in _PICTURE.findall(report)]
    samples = tuple(
        dataclasses.replace(sample, jpeg=jpeg)
        for sample, jpeg in zip(figures.samples, pictures, strict=True)
    )
    return dataclasses.replace(figures, samples=samples)
