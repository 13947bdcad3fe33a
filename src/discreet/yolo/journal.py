"""The internal log of a run: what is not private enough to publish, but good to have."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor

from discreet.step import StepReport
from discreet.storage import write_text

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
        path.touch(mode=0o600)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(f"{datetime.now(UTC).isoformat(timespec='seconds')}\n")
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


class StepJournal:
    """Appends one line per step to a CSV file of the run's internal folder.

    Args:
        path: The file; continued if present. None where another process writes.
        terms: What the T loss terms are called.
    """

    def __init__(self, path: Path | None, *, terms: Sequence[str]) -> None:
        self._path = path
        self._terms = len(terms)
        self._losses: list[Tensor] = []
        if path is not None and not path.exists():
            write_text(path, ",".join((*_BEFORE, *terms, *_BEHIND)) + "\n")

    def take_losses(self) -> list[float]:
        """The loss terms since they were last taken, summed over images."""
        sums = [float(sum(terms[i] for terms in self._losses)) for i in range(self._terms)]
        self._losses.clear()
        return sums

    def add_losses(self, terms: Tensor) -> None:
        """Keep the loss terms (B, T) of a micro-batch for the step's line."""
        self._losses.append(terms.sum(0).cpu())

    def write(
        self,
        *,
        step: int,
        report: StepReport,
        losses: Sequence[float],
        learning_rate: float,
        seconds: float,
    ) -> None:
        """Write the step's line, with means over the drawn images of the summed `losses`."""
        assert self._path is not None
        means = [term / max(report.units, 1) for term in losses]
        with self._path.open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerow(
                [step, report.units, report.clipped, report.non_finite]
                + [f"{value:.6g}" for value in (*means, learning_rate, seconds)]
            )
