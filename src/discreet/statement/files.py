"""Names of the files of a release. No other file may lie in its folder."""

from __future__ import annotations

WEIGHTS = "weights.pt"
RECORD = "privacy.json"
PAGES = {"en": "PRIVACY.md", "zh-CN": "PRIVACY.zh-CN.md"}
REPORT = "report.html"
ENVELOPE = "statement.dsse.json"

RELEASED = (WEIGHTS, RECORD, *PAGES.values(), REPORT, ENVELOPE)
