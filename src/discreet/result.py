"""What a finished run gives back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from discreet.privacy import PrivacySpent
from discreet.statement.files import WEIGHTS
from discreet.statement.record import PrivacyRecord


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A finished private run.

    Attributes:
        spent: The (ε, δ) that this training spent; of a student of public images, its teacher's.
        claim_valid: Whether the run was private at all.
        release: The folder that may leave the building.
        internal: The folder that may not.
        metrics: Detection metrics on the validation split, `map50` and `map50_95` in [0, 1];
            None if validation was turned off. Only metrics on public data are in the release.
        validation_data: "public" or "private".
        record: The content of the release's `privacy.json`.
        seconds: Wall time of the run.
    """

    spent: PrivacySpent
    claim_valid: bool
    release: Path
    internal: Path
    metrics: Mapping[str, float] | None
    validation_data: str
    record: PrivacyRecord
    seconds: float

    @property
    def weights(self) -> Path:
        """The released weights, which stock `YOLO(...)` loads."""
        return self.release / WEIGHTS

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """Back from `to_json`: what a process hears of a run that another one has finished."""
        epsilon = math.inf if facts["epsilon"] is None else facts["epsilon"]
        return cls(
            spent=PrivacySpent(epsilon=epsilon, delta=facts["delta"]),
            claim_valid=facts["claim_valid"],
            release=Path(facts["release"]),
            internal=Path(facts["internal"]),
            metrics=facts["metrics"],
            validation_data=facts["validation_data"],
            record=PrivacyRecord.model_validate_json(json.dumps(facts["privacy"])),
            seconds=facts["seconds"],
        )

    def to_json(self) -> dict[str, Any]:
        """The same facts as one JSON object. Paths are this machine's: not for publication."""
        finite = math.isfinite(self.spent.epsilon)
        return {
            "epsilon": self.spent.epsilon if finite else None,
            "delta": self.spent.delta,
            "claim_valid": self.claim_valid,
            "release": str(self.release),
            "weights": str(self.weights),
            "internal": str(self.internal),
            "metrics": None if self.metrics is None else dict(self.metrics),
            "validation_data": self.validation_data,
            "seconds": round(self.seconds, 3),
            "privacy": self.record.model_dump(mode="json"),
        }
