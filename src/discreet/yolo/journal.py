"""The internal log of a run: what is not private enough to publish, but good to have."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor

from discreet.step import StepReport

_BEFORE, _BEHIND = ("step", "drawn", "clipped", "non_finite"), ("rate", "seconds")

_RESUMES = "resumes.txt"


def count_resumes(internal: Path, *, resumed: bool) -> int:
    """How often the run of this folder went on after an interruption.

    Args:
        internal: The run's internal folder.
        resumed: Whether it does so now, which is counted.
    """
    path = internal / _RESUMES
    if resumed:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(f"{datetime.now(UTC).isoformat(timespec='seconds')}\n")
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


class StepJournal:
    """Appends one line per step to a CSV file of the run's internal folder.

    Args:
        path: The file; continued if present.
        terms: What the T loss terms are called.
    """

    def __init__(self, path: Path, *, terms: Sequence[str]) -> None:
        self._path = path
        self._terms = len(terms)
        self._losses: list[Tensor] = []
        if not path.exists():
            path.write_text(",".join((*_BEFORE, *terms, *_BEHIND)) + "\n", encoding="utf-8")

    def add_losses(self, terms: Tensor) -> None:
        """Keep the loss terms (B, T) of a micro-batch for the step's line."""
        self._losses.append(terms.sum(0).cpu())

    def write(self, *, step: int, report: StepReport, learning_rate: float, seconds: float) -> None:
        """Write the step's line; losses are means over the drawn images."""
        images = max(report.units, 1)
        means = [float(sum(term[i] for term in self._losses)) / images for i in range(self._terms)]
        self._losses.clear()
        with self._path.open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerow(
                [step, report.units, report.clipped, report.non_finite]
                + [f"{value:.6g}" for value in (*means, learning_rate, seconds)]
            )
