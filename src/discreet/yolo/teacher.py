"""Where a teacher comes from: public by the user's word, or private under a claim that holds.

What a teacher knows it passes on. So one that saw the private images without privacy is refused,
and what one that saw them with privacy has spent is part of its student's claim. Whether its
images were this run's or others', no file proves: they are taken to be the same, which can only
make ε larger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from discreet.accounting import Event, epsilon_of_runs
from discreet.config import MechanismConfig
from discreet.data import DetectionDataset
from discreet.errors import (
    ConfigurationError,
    DiscreetError,
    ModelError,
    ReleaseError,
    UnsafeArgumentError,
)
from discreet.ledger import BudgetLedger, Spent
from discreet.privacy import PrivacyUnit
from discreet.statement import schema
from discreet.statement.files import RECORD, WEIGHTS
from discreet.statement.record import as_json
from discreet.statement.summary import KEY
from discreet.statement.teaching import are_among, claimed_events
from discreet.statement.verify import verify_release
from discreet.terminal import count, format_delta, format_epsilon
from discreet.yolo._compat import load_checkpoint
from discreet.yolo.checkpoint import RunState, file_digest
from discreet.yolo.model import open_source
from discreet.yolo.provenance import PrivateImages, named_data_set, require_elsewhere

_RELEASE = "give the release folder of a private run"
_FILE_OR_RELEASE = "give a local file of weights (.pt), or the release folder of a private run"
# What to do about a teacher that comes from nowhere, as it guides private training or labels.
_TO_GUIDE = (
    "say teacher_data=public if the weights, and all that they were trained on, are public; "
    f"or {_RELEASE}"
)
_TO_LABEL = (
    f"{_RELEASE}; or give data= in place of public_data, and public weights guide private training"
)

NAMED_TEACHER = (
    "use a teacher whose checkpoint names its data set (train_args), or the release of a private "
    "run"
)


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A teacher whose provenance was looked at.

    Attributes:
        model: The detector, in float32.
        sha256: Digest of its file of weights.
        record: The statement of its release; None if it is public.
        run: What its run was started with, where the run's folder is still around the release.
        trained_on: What the checkpoint says that it was trained on, if it says so.
    """

    model: nn.Module
    sha256: str
    record: schema.PrivacyRecord | None = None
    run: RunState | None = None
    trained_on: str | None = None

    @property
    def events(self) -> tuple[Event, ...]:
        """What it has spent, and passes on; nothing if it is public."""
        if self.record is None:
            return ()
        return tuple(event.ended() for event in claimed_events(self.record))

    @property
    def may_know_anything(self) -> bool:
        """Whether neither a statement nor its checkpoint says what it was trained on."""
        return self.record is None and self.trained_on is None

    def runs_behind(self) -> tuple[RunState, ...]:
        """Its run, its own teacher's, and so on, as far as their folders are still there."""
        found: list[RunState] = []
        run = self.run
        while run is not None and run.run_id not in {other.run_id for other in found}:
            found.append(run)
            own = run.given.get("teacher")
            run = None if own is None else _run_around(_release_of(Path(str(own))))
        return tuple(found)

    def statement(
        self,
        *,
        gain: float | None = None,
        terms: tuple[schema.TeacherTerm, ...] = (),
        public_images: int | None = None,
    ) -> schema.Teacher:
        """The teacher as a record tells it.

        Args:
            gain: Weight of its part of the loss.
            terms: What of it is matched in the loss.
            public_images: How many images it labelled, if that is what it did.
        """
        return schema.Teacher(
            access="public" if self.record is None else "private",
            guides="loss" if public_images is None else "labels",
            sha256=self.sha256,
            gain=gain,
            terms=terms,
            public_images=public_images,
            claim=None if self.record is None else _claim_of(self.record),
        )

    def rows(self) -> list[tuple[str, str]]:
        """The teacher in the plan, for people."""
        if self.record is None:
            return [("teacher", f"public, by your word (sha256 {self.sha256[:12]}…)")]
        claim = self.record.claim
        epsilon = format_epsilon(math.inf if claim.epsilon is None else claim.epsilon)
        return [
            (
                "teacher",
                f"private at ε = {epsilon}, δ = {format_delta(claim.delta)}, "
                f"counted in the ε of this run (sha256 {self.sha256[:12]}…)",
            )
        ]

    def require_unit(self, unit: PrivacyUnit) -> None:
        """Refuse a private teacher that protects other units than the run.

        Raises:
            UnsafeArgumentError: It does.
        """
        if self.record is None:
            return
        theirs = self.record.unit.kind
        if theirs is not PrivacyUnit.IMAGE or unit is not PrivacyUnit.IMAGE:
            raise UnsafeArgumentError(
                f"it protects each {theirs.value} and this run each {unit.value}: no record says "
                "that their groups are the same, and so their claims cannot be composed",
                where="teacher",
                do="use a public teacher, or image-level units for both",
            )

    def check_ledger(self, ledger: BudgetLedger, dataset: DetectionDataset) -> None:
        """Refuse a public teacher that may have seen the images in a run without privacy.

        Raises:
            UnsafeArgumentError: The ledger has such a run, and the weights do not say that they
                come from elsewhere.
            LedgerError: The ledger cannot be read.
        """
        if not self.may_know_anything:
            return
        runs = ledger.runs_on([record.digest for record in dataset.train])
        exposed = [run for run in runs if not run.private and run.position]
        if exposed:
            raise UnsafeArgumentError(
                f"the ledger has {count(len(exposed), 'run')} without privacy on these images, and "
                "the weights do not say what they were trained on: they may come from there",
                where="teacher",
                do=NAMED_TEACHER,
            )

    def counted_in(
        self,
        total: Spent,
        *,
        own: tuple[Event, ...],
        mechanism: MechanismConfig,
        ledger: BudgetLedger,
        digests: list[bytes],
    ) -> Spent:
        """The total over all runs, with what the teacher spent unless the ledger has it.

        Args:
            total: By the ledger.
            own: What this run has spent.
            mechanism: Says by which accountant.
            ledger: The ledger.
            digests: Content digest of each training image.
        """
        if self.record is None:
            return total
        known = self.run is not None and any(
            run.id == self.run.run_id for run in ledger.runs_on(digests)
        )
        if known and are_among((*self.events, *own), total.events):
            return total
        events = (*total.events, *self.events)
        epsilon = epsilon_of_runs(events, delta=total.delta, accountant=mechanism.make_accountant())
        if total.unprotected_runs:
            epsilon = float("inf")
        return replace(total, epsilon=epsilon, runs=total.runs + 1, events=events)


def open_teacher(place: Path, *, vouched: bool, dataset: DetectionDataset | None) -> Teacher:
    """Open a teacher, and look at where it comes from. Nothing of it is run.

    Args:
        place: Weights (.pt), or the release folder of a private run.
        vouched: Whether the user says that it is public.
        dataset: The private images of the run; None where it sees none.

    Raises:
        UnsafeArgumentError: It has no provenance, or would pass private images on.
        ReleaseError: The release is not what its statement says.
        ModelError: It is not a detector that can be read without running code from it.
    """
    wanted, provenance = (_RELEASE, _TO_LABEL) if dataset is None else (_FILE_OR_RELEASE, _TO_GUIDE)
    if not place.exists():
        raise ModelError(
            "there is no such file or folder, and nothing is downloaded at run time",
            where=f"teacher={place}",
            do=wanted,
        )
    folder = _release_of(place)
    if place.is_dir() or folder != place:
        return _open_release(folder, vouched=vouched, wanted=wanted)
    model, checkpoint = load_checkpoint(place, argument="teacher")
    if KEY in checkpoint:
        raise UnsafeArgumentError(
            "the weights were trained on private images, and their statement is not beside them",
            where=f"teacher={place}",
            do="give the whole release folder, as the run made it",
        )
    if not vouched:
        raise UnsafeArgumentError(
            "nothing says where the teacher comes from", where=f"teacher={place}", do=provenance
        )
    trained_on = named_data_set(model, checkpoint)
    require_elsewhere(
        trained_on,
        None if dataset is None else PrivateImages.of(dataset),
        what="the teacher",
        where=f"teacher={place}",
        do="use a teacher that was trained on public images, or the release of a private run",
    )
    return Teacher(
        model=open_source(model, argument="teacher", place=place),
        sha256=file_digest(place),
        trained_on=trained_on,
    )


def _release_of(place: Path) -> Path:
    """The release folder that was meant: it, or one of its files, may be given."""
    return place.parent if (place.parent / RECORD).is_file() else place


def _open_release(folder: Path, *, vouched: bool, wanted: str) -> Teacher:
    where = f"teacher={folder}"
    if not (folder / RECORD).is_file():
        inside = folder / "release" / RECORD
        raise ConfigurationError(
            "the folder is not a release: it holds no privacy.json",
            where=where,
            do=f"give teacher={inside.parent}" if inside.is_file() else wanted,
        )
    if vouched:
        raise ConfigurationError(
            "a private run's release has a claim of its own, and is not public data",
            where="teacher_data=public",
            do="leave teacher_data out",
        )
    found = verify_release(folder)
    if not found.valid or found.record is None:
        raise ReleaseError(
            "the teacher's release is not what its statement says",
            problems=found.faults,
            where=where,
            do="get the release again from whoever made it",
        )
    record = found.record
    reasons = [*record.claim.reasons_against]
    if record.purpose == "audit":
        reasons.append("its weights are for auditing only")
    if reasons or not record.claim_valid:
        raise UnsafeArgumentError(
            f"the teacher is not private: {'; '.join(reasons)}",
            where=where,
            do="use the release of a run that carries a guarantee",
        )
    weights = folder / WEIGHTS
    return Teacher(
        model=open_source(weights, argument="teacher"),
        sha256=file_digest(weights),
        record=record,
        run=_run_around(folder),
    )


def _claim_of(record: schema.PrivacyRecord) -> schema.TeacherClaim:
    return schema.TeacherClaim(
        claim=record.claim,
        units=record.data.training.units,
        unit=record.unit,
        accountant=record.accountant,
        events=tuple(as_json(event) for event in claimed_events(record)),
    )


def _run_around(release: Path) -> RunState | None:
    """The run that a release still lies in."""
    try:
        return RunState.load(release.parent)
    except DiscreetError:
        return None
