"""`report.html`: the statement as one page with pictures, in two languages, without scripts."""

from discreet.statement.report.page import render_report
from discreet.statement.report.validation import Box, ClassCurve, Sample, ValidationFigures

__all__ = ["Box", "ClassCurve", "Sample", "ValidationFigures", "render_report"]
