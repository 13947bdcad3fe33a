"""A comparison on disk: each row as soon as it is measured, so that the rest can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from discreet.comparing import Comparison, Measured
from discreet.comparing.plot import write_plot
from discreet.errors import ConfigurationError
from discreet.storage import write_json, write_text
from discreet.yolo.checkpoint import RunState, claim_run_folder, dataset_digest
from discreet.yolo.preparation import PreparedRun

_NOT_PRIVATE = (
    "Models in this folder were trained without privacy on the images, or are compared with such "
    "models. Nothing here may be published as private.\n"
)
_RESULT = "comparison.json"


class ComparisonFolder:
    """The folder of one comparison, with `comparison.json`, `.csv`, `.md` and `.svg`.

    Attributes:
        path: Where it is.
        comparison: What was measured so far.
    """

    def __init__(self, path: Path, comparison: Comparison, begun: Mapping[str, Any]) -> None:
        self.path = path
        self.comparison = comparison
        self._begun = begun

    @classmethod
    def new(
        cls, project: Path, name: str, *, asked: Mapping[str, Any], largest: PreparedRun
    ) -> Self:
        """A folder that no other run has, without a row.

        Args:
            project: Folder of the comparisons.
            name: Wanted name.
            asked: What was asked for; the same again is needed to resume it.
            largest: The run at the largest ε.

        Raises:
            ConfigurationError: If the folder lies among the images.
            StorageError: If it cannot be made.
        """
        dataset = largest.dataset
        images = {record.image.parent for record in (*dataset.train, *dataset.val)}
        path = claim_run_folder(project, name=name, exist_ok=False, images=images)
        write_text(path / "NOT-PRIVATE.txt", _NOT_PRIVATE)
        comparison = Comparison(population=len(dataset.units()))
        folder = cls(path, comparison, {"asked": asked, "start": _start(largest)})
        folder._write()
        return folder

    @classmethod
    def resumed(cls, path: Path, *, asked: Mapping[str, Any], largest: PreparedRun) -> Self:
        """The folder of an interrupted comparison, if the rest would be measured on the same.

        Args:
            path: Where it is.
            asked: As when it began.
            largest: The run at the largest ε, as it would be now.

        Raises:
            ConfigurationError: No comparison is there, or what it compares has changed.
        """
        try:
            facts = json.loads((path / _RESULT).read_text(encoding="utf-8"))
            comparison, then = Comparison.from_json(facts), facts["start"]
            run, validation = RunState.from_json(then["run"]), then["validation"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                "no comparison to resume there",
                where=f"resume={path}",
                do="leave resume out to begin one",
            ) from error
        now = _start(largest)
        run.check_unchanged(RunState.from_json(now["run"]), of="comparison")
        if validation != now["validation"]:
            raise ConfigurationError(
                "the validation images, labels or class names are not as when the comparison began",
                where="resume",
                do="restore them, or start a new comparison",
            )
        if facts.get("asked") != asked:
            raise ConfigurationError(
                "the comparison was begun with other arguments",
                where=f"resume={path}",
                do="give the same ones, or leave resume out to begin another",
            )
        return cls(path, comparison, {"asked": asked, "start": then})

    @property
    def names(self) -> frozenset[str]:
        """Who is measured already."""
        return frozenset(row.name for row in self.comparison.rows)

    @property
    def run_id(self) -> str:
        """Under which the ledger of the data set knows its training without privacy."""
        return self._begun["start"]["run"]["run_id"]

    def add(self, row: Measured) -> None:
        """Keep what one contestant has reached."""
        self.comparison = self.comparison.with_row(row)
        self._write()

    def _write(self) -> None:
        write_text(self.path / "comparison.csv", self.comparison.to_csv())
        write_text(self.path / "comparison.md", self.comparison.to_markdown())
        write_plot(self.comparison, self.path / "comparison.svg")
        write_json(self.path / _RESULT, {**self.comparison.to_json(), **self._begun})


def _start(largest: PreparedRun) -> dict[str, Any]:
    """What every contestant is measured on."""
    only_validation = replace(largest.dataset, train=largest.dataset.val, grouping=None)
    return {"run": largest.state.to_json(), "validation": dataset_digest(only_validation)}
