"""Names of the files of a release. No other file may lie in its folder."""

from __future__ import annotations

WEIGHTS = "weights.pt"
RECORD = "privacy.json"
PAGES = {"en": "PRIVACY.md", "zh-CN": "PRIVACY.zh-CN.md"}
REPORT = "report.html"
ENVELOPE = "statement.dsse.json"

RELEASED = (WEIGHTS, RECORD, *PAGES.values(), REPORT, ENVELOPE)

LARGEST = {
    WEIGHTS: 2**30,
    RECORD: 2_000_000,
    **dict.fromkeys(PAGES.values(), 200_000),
    REPORT: 2_000_000,
    ENVELOPE: 200_000,
}
"""Most bytes of each file, far above what a release has: more is not read."""
