"""A run that can go on after a crash: its settings, its model, and what it has charged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ValidationError
from torch import nn

from discreet.config import MechanismConfig
from discreet.data import ImageRecord
from discreet.errors import ConfigurationError, StorageError
from discreet.storage import write_atomically, write_json

SCHEMA = 1
RUN = "run.json"
CHECKPOINT = "checkpoint.pt"
# What may differ when a run goes on: nothing that the guarantee or the model depends on.
_MAY_CHANGE = frozenset({"device", "workers", "micro_batch", "verbose", "resume"})


def dataset_digest(records: Sequence[ImageRecord]) -> str:
    """Digest of the training images and labels, whatever their names. Private."""
    total = hashlib.blake2b(digest_size=16)
    parts = sorted(
        record.digest + record.classes.tobytes() + record.boxes.tobytes() for record in records
    )
    for part in parts:
        total.update(hashlib.blake2b(part, digest_size=16).digest())
    return total.hexdigest()


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run was started with.

    Attributes:
        given: The arguments, as the user gave them.
        mechanism: What the guarantee depends on, noise already calibrated.
        dataset: Digest of the training set.
    """

    given: Mapping[str, Any]
    mechanism: MechanismConfig
    dataset: str

    def save(self, internal: Path) -> None:
        """Write to the run's internal folder."""
        content = {
            "schema": SCHEMA,
            "given": {key: _plain(value) for key, value in self.given.items()},
            "mechanism": self.mechanism.model_dump(mode="json"),
            "dataset": self.dataset,
        }
        write_json(internal / RUN, content)

    @classmethod
    def load(cls, run: Path) -> Self:
        """Read back from a run's folder.

        Raises:
            ConfigurationError: If the folder holds no run.
            StorageError: If its record cannot be read.
        """
        path = run / "internal" / RUN
        if not path.is_file():
            raise ConfigurationError(
                "no run to resume there",
                where=f"resume={run}",
                do="give the folder of a run, such as runs/private/train",
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                raise ValueError(f"schema {content['schema']}")
            return cls(
                given=content["given"],
                mechanism=MechanismConfig.model_validate_json(json.dumps(content["mechanism"])),
                dataset=content["dataset"],
            )
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise StorageError(
                f"the run's record cannot be read ({error})",
                where=str(path),
                do="restore it from a backup, or start a new run",
            ) from error

    def continued_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The run's own arguments, with those of `given` that may change.

        Raises:
            ConfigurationError: If another argument differs from the run's.
        """
        for key, value in given.items():
            if key not in _MAY_CHANGE and _plain(self.given.get(key)) != _plain(value):
                raise ConfigurationError(
                    f"the run was started with {key}={self.given.get(key)!r}, not {value!r}; "
                    "a run goes on as it began",
                    where=key,
                    do=f"leave {key} out, or start a new run",
                )
        changed = {key: value for key, value in given.items() if key in _MAY_CHANGE}
        return {**self.given, **changed}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, list, type(None))) else str(value)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Model and optimizer after some steps. Random streams are never part of it.

    Attributes:
        executed: Steps whose update is in the weights.
        model: The model's state.
        optimizer: The optimizer's state.
    """

    executed: int
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]

    def save(self, internal: Path) -> None:
        """Write to the run's internal folder, whole or not at all."""
        content = {
            "schema": SCHEMA,
            "executed": self.executed,
            "model": dict(self.model),
            "optimizer": dict(self.optimizer),
        }
        write_atomically(internal / CHECKPOINT, lambda stream: torch.save(content, stream))

    @classmethod
    def load(cls, internal: Path) -> Self | None:
        """Read back; None where the run had not come to its first checkpoint.

        Raises:
            StorageError: If the file is torn or not a checkpoint.
        """
        path = internal / CHECKPOINT
        if not path.exists():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            if content["schema"] != SCHEMA:
                raise ValueError(f"schema {content['schema']}")
            return cls(
                executed=int(content["executed"]),
                model=content["model"],
                optimizer=content["optimizer"],
            )
        except Exception as error:
            raise StorageError(
                f"the checkpoint cannot be read ({str(error).splitlines()[0]})",
                where=str(path),
                do="restore it from a backup, or start a new run; what was charged stays charged",
            ) from error

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put the state back in place."""
        model.load_state_dict(dict(self.model))
        optimizer.load_state_dict(dict(self.optimizer))
