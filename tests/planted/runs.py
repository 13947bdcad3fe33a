"""Correct runs of this code base, and the product's tools looking at them.

Every method named after a tool returns its alarms. A refusal is one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import discreet
from discreet.accounting import (
    Event,
    PoissonSampledGaussian,
    calibrate_noise_multiplier,
    make_accountant,
)
from discreet.api import train
from discreet.auditing.result import judge
from discreet.auditing.trials import ADVERSARY, step_trials
from discreet.checking import PROBES, Subject, run_checks
from discreet.clipping import FlatClipping
from discreet.errors import DiscreetError
from discreet.noise import GaussianMechanism
from discreet.randomness import InsecureSource
from discreet.statement.scan import PrivateWords, scan_release
from discreet.statement.verify import verify_release
from discreet.yolo import checking, release
from discreet.yolo.audit import AuditedTrainer, audit_run
from discreet.yolo.train import PrivateDetectionTrainer, default_callbacks

from ..models.data import write_shapes
from ..models.matrix import settled
from ..statement.conftest import record_of
from ..yolo.conftest import IMGSZ, make_model
from .small_step import Rows, subject

DELTA = 1e-5
PRETRAINED = str(Path(discreet.__file__).parent / "demo" / "demo-model.pt")


def _nothing() -> None:
    """Nothing has to be undone."""


class Run:
    """A correct run.

    Args:
        folder: An empty folder of its own.
        scenes: `data.yaml` of 24 small images.

    Attributes:
        before_a_stranger_looks: Undoes what is planted: a stranger has the code as it is shipped.
    """

    def __init__(self, folder: Path, scenes: Path) -> None:
        self.folder, self.scenes = folder, scenes
        self.before_a_stranger_looks: Callable[[], None] = _nothing

    @property
    def key(self) -> str:
        """Equal for runs of the same settings."""
        return type(self).__name__


@contextmanager
def _refusals(alarms: list[str]) -> Generator[None]:
    try:
        yield
    except DiscreetError as error:
        alarms.append(str(error))


# ---- one step of a small torch model ----

EPSILON, TRIALS = 2.0, 400


@cache
def _noise_multiplier() -> float:
    def one_step(sigma: float) -> list[Event]:
        return [PoissonSampledGaussian(sample_rate=1.0, noise_multiplier=sigma, steps=1)]

    return calibrate_noise_multiplier(
        target_epsilon=EPSILON, delta=DELTA, events=one_step, accountant=make_accountant("pld")
    )


class Step(Run):
    """One step of DP-SGD on a small torch model, as a user would give it to `discreet.check`.

    Attributes:
        changes: What differs from `small_step.subject()`.
    """

    def __init__(self, folder: Path, scenes: Path) -> None:
        super().__init__(folder, scenes)
        self.changes: dict[str, Any] = {}

    def subject(self) -> Subject:
        """The step, for the probes."""
        return subject(**self.changes)

    def check(self) -> list[str]:
        """Violations that the core of every check finds."""
        return [str(finding) for finding in run_checks(self.subject()).violations]

    def audit(self) -> list[str]:
        """Whether a hundred repetitions of the step prove more than its claim."""
        made = self.subject()
        start = {name: p.detach().clone() for name, p in made.parameters.items()}
        rows = {n: torch.randn(3, *p.shape) for n, p in made.parameters.items()}
        # The last unit asks ten times its share.
        asks = torch.tensor([0.5, 2.0, 10.0]) * made.max_grad_norm
        norms = torch.stack([row.flatten(1).square().sum(1) for row in rows.values()]).sum(0).sqrt()
        rows = {n: row * (asks / norms).view(-1, *[1] * (row.dim() - 1)) for n, row in rows.items()}
        units = {True: Rows(rows), False: Rows({n: row[:2] for n, row in rows.items()})}
        source = InsecureSource(11)
        mechanism = GaussianMechanism(noise_multiplier=_noise_multiplier())

        def step(included: bool) -> Mapping[str, Tensor]:
            with torch.no_grad():
                for name, parameter in made.parameters.items():
                    parameter.copy_(start[name])
            made.step(
                [included],
                parameters=made.parameters,
                gradients_of=units.__getitem__,
                clipping=FlatClipping(max_grad_norm=made.max_grad_norm),
                mechanism=mechanism,
                expected_batch_size=1.0,
                source=source,
                charge=_nothing,
                optimizer=torch.optim.SGD(made.parameters.values(), lr=1.0),
            )
            return {n: start[n] - p.detach() for n, p in made.parameters.items()}

        weights = (made.max_grad_norm / asks).clamp(max=1)
        known = {
            there: held.weighted_sum(dict.fromkeys(rows, weights[: 3 if there else 2]))
            for there, held in units.items()
        }
        found = judge(
            step_trials(step, known=known, trials=TRIALS, source=source),
            attack="trials",
            adversary=ADVERSARY,
            claimed_epsilon=EPSILON,
            delta=DELTA,
            stream=source.stream(),
        )
        return [found.verdict] if found.refuted else []


# ---- a run of the trainer ----


class _SetUp(checking._Rehearsal):
    """Goes as far as a run does before its check."""

    def _do_train(self) -> None:
        try:
            self._setup_train()
        finally:
            self._leave_folder()


class _Statistics(checking._Rehearsal):
    """Looks at noise and draws only, at length."""

    alarms: list[str]

    def _do_train(self) -> None:
        try:
            self._setup_train()
            report = checking.check_trainer(self, full=True, real=True, without=self.others)
            self.alarms = [str(finding) for finding in report.violations]
        finally:
            self._leave_folder()

    others = (
        *(probe for probe in PROBES if probe != "noise"),
        *("augmentation", "access", "loader", "features", "schedule", "randomness"),
    )


class Training(Run):
    """A run of the trainer on 24 images.

    Attributes:
        given: Its arguments.
    """

    def __init__(self, folder: Path, scenes: Path) -> None:
        super().__init__(folder, scenes)
        self.given: dict[str, Any] = {
            "data": str(scenes),
            "model": PRETRAINED,
            "noise_multiplier": 1.5,
            "delta": DELTA,
            "max_grad_norm": 0.7,
            "batch": 8,
            "steps": 3,
            "imgsz": IMGSZ,
            "trainable": "head",
            "norm": "frozen",
            "val": False,
            "project": str(folder / "runs"),
        }

    @property
    def key(self) -> str:
        """Equal for runs of the same settings."""
        return str(sorted((k, v) for k, v in self.given.items() if k != "project"))

    def configuration(self) -> list[str]:
        """Refusals of arguments, data and model, before anything is checked."""
        alarms: list[str] = []
        with _refusals(alarms):
            _SetUp(overrides=self.given, _callbacks=default_callbacks()).train()
        return alarms

    def check(self) -> list[str]:
        """Violations that `discreet check` finds."""
        alarms: list[str] = []
        with _refusals(alarms):
            report = checking.check_arguments(self.given)
            alarms += [str(finding) for finding in report.violations]
        return alarms

    def statistics(self) -> list[str]:
        """What the statistics of `discreet check --full` say of noise and draws."""
        rehearsal = _Statistics(overrides=self.given, _callbacks=default_callbacks())
        rehearsal.train()
        return rehearsal.alarms

    def ledger(self) -> list[str]:
        """What stops the run at a charge, when nothing was checked before."""
        alarms: list[str] = []
        with (
            _refusals(alarms),
            mock.patch.object(PrivateDetectionTrainer, "_check_step", lambda _: None),
        ):
            train(self.given)
        return alarms

    def audit(self) -> list[str]:
        """Whether an audit of the whole run refutes its claim."""
        given = {**self.given, "batch": 512, "steps": 4, "trainable": "all", "epsilon": 3}
        del given["noise_multiplier"]
        with mock.patch.object(AuditedTrainer, "_check_step", lambda _: None):
            result = audit_run(given, canaries=1000).result
        return [result.verdict] if result.refuted else []


class Segmenting(Training):
    """A run of the trainer on ten images with masks."""

    def __init__(self, folder: Path, scenes: Path) -> None:
        super().__init__(folder, scenes)
        weights = settled("yolov8n-seg.yaml", folder / "public.pt")
        data = write_shapes(folder / "shapes", "segment")
        self.given |= {"data": str(data), "model": str(weights), "batch": 5}

    @property
    def key(self) -> str:
        """Equal for runs of the same settings."""
        return type(self).__name__


# ---- a release ----

WORDS = PrivateWords.of(
    files=[Path("/mri/ward_b/anna-1954.png"), Path("/mri/ward_b/two words.png")],
    folders=[Path("/mri/ward_b")],
)


@cache
def _released_model() -> torch.nn.Module:
    return release.releasable(make_model("group"), args={"imgsz": IMGSZ, "task": "detect"})


class Release(Run):
    """Weights and the record of a run, published.

    Attributes:
        facts: What differs from the record of `record_of()`.
        after: Done to the published folder.
    """

    def __init__(self, folder: Path, scenes: Path) -> None:
        super().__init__(folder, scenes)
        self.facts: dict[str, Any] = {}
        self.after: Callable[[Path], None] = lambda _: None

    def _publish(self, words: PrivateWords | None = None) -> Path:
        folder = self.folder / "release"
        release.publish(
            folder,
            staging=self.folder / "staging",
            released=_released_model(),
            record=record_of(**self.facts),
            key=None,
            words=words or PrivateWords(),
        )
        self.after(folder)
        return folder

    def scan(self) -> list[str]:
        """Why the release is not published, or what is found in it afterwards."""
        alarms: list[str] = []
        with _refusals(alarms):
            alarms += scan_release(self._publish(WORDS), words=WORDS)
        return alarms

    def verify(self) -> list[str]:
        """What a stranger finds wrong with the release."""
        folder = self._publish()
        self.before_a_stranger_looks()
        return list(verify_release(folder).faults)
