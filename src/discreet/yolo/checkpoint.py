"""A run that can go on after a crash: its settings, its model, and what it has charged."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ValidationError
from torch import nn

from discreet.arguments import known_names, parse_value, privacy
from discreet.arguments.problems import gather
from discreet.arguments.split import default_of, usable_names
from discreet.arguments.suggestions import unknown_argument
from discreet.arguments.values import check_value
from discreet.config import MechanismConfig
from discreet.data import DetectionDataset, ImageRecord
from discreet.errors import ConfigurationError, StorageError
from discreet.ledger import without_secrets
from discreet.recipes import CHOSEN
from discreet.storage import Seal, is_sealed, make_folder, write_json, write_sealed

SCHEMA = 4
RUN = "run.json"
CHECKPOINT = "checkpoint.pt"
# What may differ when a run goes on: nothing that the guarantee depends on.
_MAY_CHANGE = frozenset(
    {"device", "workers", "amp", "micro_batch", "feature_cache", "team_timeout"}
    | {"verbose", "resume", "ledger", "sign"}
)
# What may differ between the processes of a run: they round alike.
_MAY_DIFFER = _MAY_CHANGE - {"amp"}
_PATHS = frozenset(
    {"data", "groups", "model", "pretrained", "teacher", "public_data", "project", "cfg"}
)


def _labels(record: ImageRecord) -> bytes:
    """All that the labels of an image say."""
    points = b"" if record.keypoints is None else record.keypoints.tobytes()
    outlines = (len(o).to_bytes(4, "big") + o.tobytes() for o in record.outlines)
    return b"".join((record.classes.tobytes(), record.boxes.tobytes(), points, *outlines))


def dataset_digest(dataset: DetectionDataset) -> str:
    """Digest of the training images, labels, class names and units. Private.

    Whatever the names of files and groups are: a unit is known by its images.
    """
    total = hashlib.blake2b(json.dumps(list(dataset.names)).encode(), digest_size=16)
    unit_of: dict[int, bytes] = {}
    for unit in dataset.units().members if dataset.grouping else ():
        unit_of |= dict.fromkeys(unit, min(dataset.train[image].digest for image in unit))
    parts = sorted(
        record.digest + _labels(record) + unit_of.get(number, b"")
        for number, record in enumerate(dataset.train)
    )
    for part in parts:
        total.update(hashlib.blake2b(part, digest_size=16).digest())
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file; empty where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def find_run(resume: object, *, project: str | Path) -> Path | None:
    """The interrupted run that `resume` names: a folder, or True for the latest.

    Raises:
        ConfigurationError: If there is none.
    """
    text = str(resume).lower()
    if resume is None or text in {"false", "none", ""}:
        return None
    if text != "true":
        return Path(str(resume))
    runs = sorted(Path(project).glob(f"*/internal/{RUN}"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise ConfigurationError(
            f"no run to resume in {project}", where="resume", do="give resume=FOLDER of a run"
        )
    return runs[-1].parent.parent


def claim_run_folder(project: Path, *, name: str, exist_ok: bool, images: Iterable[Path]) -> Path:
    """Make a folder for a new run, of no other run: `name`, `name-2`, and so on.

    Args:
        project: Folder of the runs.
        name: Wanted name.
        exist_ok: Whether a folder of that name may be used, if it holds no run.
        images: Folders of the data set's images and labels, where no run may write.

    Raises:
        ConfigurationError: If the folder lies among the images, or holds a run.
        StorageError: If it cannot be made.
    """
    place = (project / name).resolve()
    if any(place.is_relative_to(folder.resolve()) for folder in images):
        raise ConfigurationError(
            "the run's folder lies among the data set's images",
            where=f"project={project}",
            do="choose another with project=FOLDER",
        )
    if exist_ok and (project / name / "internal").exists():
        raise ConfigurationError(
            "a run is there already, and what it charged must not be mixed with another's",
            where=f"name={name}",
            do=f"resume it with resume={project / name}, or choose another name",
        )
    make_folder(project)
    for number in itertools.count(1):
        folder = project / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True, exist_ok=exist_ok)
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(
                f"the folder cannot be made ({error.strerror or error})",
                where=str(folder),
                do="choose another with project=FOLDER",
            ) from error
        return folder
    raise AssertionError("unreachable")


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run was started with.

    Attributes:
        given: The arguments, as the user gave them.
        mechanism: What the guarantee depends on, noise already calibrated.
        dataset: Digest of the training set.
        source: Digest of the weights that it started from; empty for an architecture.
        run_id: Under which the run is charged in the ledger of its data set.
        chosen: What the recipe chose for it, by name.
    """

    given: Mapping[str, Any]
    mechanism: MechanismConfig
    dataset: str
    source: str
    run_id: str
    chosen: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {
            "schema": SCHEMA,
            "given": {key: _plain(key, value) for key, value in self.given.items()},
            "mechanism": self.mechanism.model_dump(mode="json"),
            "dataset": self.dataset,
            "source": self.source,
            "run_id": self.run_id,
            "chosen": dict(self.chosen),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Back from `to_json`."""
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, of another version")
        if not isinstance(content["given"], Mapping):
            raise TypeError("its arguments are no mapping")
        return cls(
            given=content["given"],
            mechanism=MechanismConfig.model_validate_json(json.dumps(content["mechanism"])),
            dataset=content["dataset"],
            source=content["source"],
            run_id=content["run_id"],
            chosen=content["chosen"],
        )

    def in_common(self) -> dict[str, str]:
        """What all processes of a run must have alike, by what it is called.

        Files may lie elsewhere on each host; their content may not differ. Nor are noise
        multipliers compared: hosts may calibrate to different last digits, and only the leader
        makes noise.
        """
        given = {k: v for k, v in self.given.items() if k not in _MAY_DIFFER | _PATHS}
        arguments = json.dumps({key: str(_meaning(key, given[key])) for key in sorted(given)})
        mechanism = self.mechanism.with_noise(1.0).model_dump_json()
        return {
            "training images, labels or class names": self.dataset,
            "weights to start from": self.source,
            "arguments": hashlib.sha256(arguments.encode()).hexdigest(),
            "numbers in the mechanism": hashlib.sha256(mechanism.encode()).hexdigest(),
        }

    def save(self, internal: Path) -> None:
        """Write to the run's internal folder."""
        write_json(internal / RUN, self.to_json())

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
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise StorageError(
                f"the run's record cannot be read ({error})",
                where=str(path),
                do="restore it from a backup, or start a new run",
            ) from error

    def check_unchanged(self, other: Self, *, of: str = "run") -> None:
        """Refuse to go on with other data, other weights, or a record that does not add up.

        Args:
            other: What it would go on with.
            of: What was started so: a run, or a comparison of several.

        Raises:
            ConfigurationError: If anything is not as it was.
        """
        changed = {
            "the training images, labels, groups or class names are": other.dataset != self.dataset,
            f"the weights that the {of} started from, or other public files, are": other.source
            != self.source,
            "the number of units on record is": (
                other.mechanism.population != self.mechanism.population
            ),
        }
        for what, differs in changed.items():
            if differs:
                raise ConfigurationError(
                    f"{what} not as when the {of} began",
                    where="resume",
                    do=f"restore them, or start a new {of}",
                )

    def continued_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The run's own arguments, with those of `given` that may change.

        Raises:
            ConfigurationError: If another argument differs from the run's.
        """
        problems = [
            unknown_argument(key, value, usable_names())
            for key, value in given.items()
            if key not in known_names()
        ]
        if problems:
            raise gather(problems)
        for key, value in given.items():
            if key in _MAY_CHANGE:
                continue
            chosen = key in CHOSEN and self.given.get(key) is None
            own = self.given.get(key, default_of(key))
            if chosen or _meaning(key, own) != _meaning(key, value):
                began = f"{key} left to the recipe" if chosen else f"{key}={own!r}"
                raise ConfigurationError(
                    f"the run was started with {began}, not {value!r}; a run goes on as it began",
                    where=key,
                    do=f"leave {key} out, or start a new run",
                )
        changed = {key: value for key, value in given.items() if key in _MAY_CHANGE}
        return {**self.given, **changed}


def _meaning(key: str, value: Any) -> Any:
    """What an argument says, however it is written: 1.20 is 1.2, and "8" is 8."""
    value = _plain(key, value)
    if key in _PATHS:
        return value
    if key in privacy.names():
        with suppress(ValueError):
            return check_value(privacy.kind_of(key), value)
    return parse_value(value) if isinstance(value, str) else value


def _plain(key: str, value: Any) -> Any:
    if key == "ledger" and isinstance(value, (str, Path)):
        return without_secrets(value)  # None, as not given: a password is asked for again
    if key in _PATHS and isinstance(value, (str, Path)) and Path(value).exists():
        return str(Path(value).resolve())  # the run may go on from another folder
    return value if isinstance(value, (bool, int, float, list, type(None))) else str(value)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Model and optimizer after some steps. Random streams are never part of it.

    Attributes:
        executed: Steps whose update is in the weights.
        model: The model's state.
        optimizer: The optimizer's state.
        max_grad_norm: The clip norm to go on with: adaptive clipping moves it.
    """

    executed: int
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    max_grad_norm: float

    def save(self, internal: Path, *, seal: Seal) -> None:
        """Write to the run's internal folder, whole or not at all, under a seal."""
        content = {
            "schema": SCHEMA,
            "executed": self.executed,
            "model": dict(self.model),
            "optimizer": dict(self.optimizer),
            "max_grad_norm": self.max_grad_norm,
        }
        write_sealed(internal / CHECKPOINT, lambda stream: torch.save(content, stream), seal=seal)

    @classmethod
    def load(cls, internal: Path, *, seal: Seal) -> Self | None:
        """Read back; None where the run had not come to its first checkpoint.

        Raises:
            StorageError: If the file is torn, changed, or not a checkpoint.
        """
        path = internal / CHECKPOINT
        if not path.exists():
            return None
        try:
            if not is_sealed(path, seal=seal):
                raise ValueError("it is not, to the last byte, what this run wrote")
            content = torch.load(path, map_location="cpu", weights_only=True)
            if content["schema"] != SCHEMA:
                raise ValueError(f"schema {content['schema']}, of another version")
            return cls(
                executed=int(content["executed"]),
                model=content["model"],
                optimizer=content["optimizer"],
                max_grad_norm=float(content["max_grad_norm"]),
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
