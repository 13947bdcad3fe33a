"""What a check found: one line per probe, for people, for programs, and for the release."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from discreet.errors import CheckError

VERSION = "1"
Verdict = Literal["passed", "failed", "not run"]

_WIDTH = 88
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of one probe.

    Attributes:
        probe: Name of the probe.
        compared: What was compared with what.
        verdict: Whether it is in order.
        deviation: Largest deviation seen; None where nothing was measured. Private: it was
            measured on the user's images.
        limit: Largest deviation allowed, in the same unit.
        where: Modules, loss terms or parameters at fault.
        what: What is wrong, or why the probe could not run; empty where it passed.
        do: What to do about it.
    """

    probe: str
    compared: str
    verdict: Verdict
    deviation: float | None = None
    limit: float | None = None
    where: tuple[str, ...] = ()
    what: str = ""
    do: str = ""

    def __str__(self) -> str:
        shown = ", ".join(self.where[:_SHOWN])
        more = f" and {len(self.where) - _SHOWN} more" if len(self.where) > _SHOWN else ""
        place = f"{shown}{more}: " if shown else ""
        return f"{self.probe}: {place}{self.what or self.compared}"


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What all probes found.

    Attributes:
        findings: One per probe, in the order in which they ran.
    """

    findings: tuple[Finding, ...]

    @property
    def violations(self) -> tuple[Finding, ...]:
        """The probes that failed."""
        return tuple(finding for finding in self.findings if finding.verdict == "failed")

    @property
    def passed(self) -> bool:
        """Whether no probe failed."""
        return not self.violations

    def require(self) -> None:
        """Refuse what did not pass.

        Raises:
            CheckError: A probe failed.
        """
        if self.passed:
            return
        first = self.violations[0]
        raise CheckError(
            f"the step is not private: {first.what}",
            where=", ".join(first.where[:_SHOWN]) or first.probe,
            problems=[str(finding) for finding in self.violations],
            do=first.do or "nothing was spent; mend it and run `discreet check` again",
        )

    def summary(self) -> dict[str, Any]:
        """What a release may say: probes and verdicts, nothing that was measured on images."""
        return {
            "version": VERSION,
            "passed": self.passed,
            "probes": [
                {"name": finding.probe, "verdict": finding.verdict} for finding in self.findings
            ],
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, for a program on this machine; deviations come from private images."""
        return {
            "version": VERSION,
            "passed": self.passed,
            "probes": [
                {
                    "name": finding.probe,
                    "compared": finding.compared,
                    "deviation": _rounded(finding.deviation),
                    "limit": _rounded(finding.limit),
                    "verdict": finding.verdict,
                    "where": list(finding.where),
                    "what": finding.what,
                }
                for finding in self.findings
            ],
        }

    def to_text(self) -> str:
        """The table for a person."""
        lines = list(self._table())
        failed, missing = len(self.violations), self._count("not run")
        told = [f"{self._count('passed')} passed", f"{failed} failed", f"{missing} not run"]
        return "\n".join([*lines, "", ", ".join(told)])

    def _count(self, verdict: Verdict) -> int:
        return sum(finding.verdict == verdict for finding in self.findings)

    def _table(self) -> Iterator[str]:
        rows = [("probe", "deviation", "limit", "verdict")]
        rows += [
            (f.probe, _number(f.deviation), _number(f.limit), f.verdict) for f in self.findings
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        details: Sequence[Finding | None] = (None, *self.findings)
        for row, finding in zip(rows, details, strict=True):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield "  ".join(cells).rstrip()
            if finding is None:
                continue
            yield from _indented(finding.compared)
            if finding.what:
                place = f"{', '.join(finding.where[:_SHOWN])}: " if finding.where else ""
                yield from _indented(f"→ {place}{finding.what}")
            if finding.do and finding.verdict == "failed":
                yield from _indented(f"→ {finding.do}")


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="    ")


def _rounded(value: float | None) -> float | None:
    """One significant digit: enough to compare with a limit."""
    if value is None or not math.isfinite(value) or value == 0:
        return value
    return float(f"{value:.0e}")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return "0" if value == 0 else f"{value:.0e}"
