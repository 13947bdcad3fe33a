"""The data that a run read, and the model that it learnt from."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from discreet.statement.part import (
    CountFromOne,
    Digest,
    NonNegative,
    Part,
    Sha256,
)
from discreet.statement.schema.claim import AccountantFacts, Claim, Events, Unit


class TrainingData(Part):
    """The private images."""

    access: Literal["private"]
    """How they are treated."""
    units: CountFromOne
    """Number of privacy units n."""
    units_are_disclosed: Literal[True]
    """n is published, and not protected: it sets the sample rate."""


class ValidationData(Part):
    """The validation images."""

    access: Literal["public", "private", "none"]
    """Public by the user's word; private: looked at, and nothing of it is in the release."""
    metrics_are_released: bool
    """Whether metrics on them are in this record."""


class PretrainingData(Part):
    """What the weights were before the run."""

    access: Literal["public", "none"]
    """Public by assumption, as is all that they were trained on; none: begun from scratch."""
    sha256: Sha256 | None
    """Digest of the file of weights; null where there was none."""


class PartnerData(Part):
    """Public images that private ones were mixed with (mosaic, mixup)."""

    access: Literal["public"]
    """By the user's word."""
    images: CountFromOne
    blake2b: Digest
    """Of the pixels of all images, their labels and class names."""


class DataAccesses(Part):
    """All data that the run read."""

    training: TrainingData
    validation: ValidationData
    pretraining: PretrainingData
    partners: PartnerData | None
    """Null where private images were mixed with no others."""


TeacherTerm = Literal["teacher's classes", "teacher's boxes", "teacher's features"]


class TeacherClaim(Part):
    """The guarantee of a teacher that saw private images, as its own statement has it."""

    claim: Claim
    units: CountFromOne
    """Number of privacy units that it was trained on."""
    unit: Unit
    accountant: AccountantFacts
    events: Events
    """All that its ε follows from."""


class Teacher(Part):
    """A model that this one learnt from."""

    access: Literal["public", "private"]
    """public by the user's word, as is all that it was trained on; private: under its own claim."""
    guides: Literal["loss", "labels"]
    """loss: what it says of each private image is in that image's loss, inside the clipped
    gradient; labels: it labelled public images, and this model saw no others."""
    sha256: Sha256
    """Digest of its file of weights."""
    gain: NonNegative | None
    """Weight of its part of the loss; null where it has none."""
    terms: tuple[TeacherTerm, ...]
    """What of it is matched in the loss."""
    public_images: CountFromOne | None
    """Images that it labelled; null where it guides the loss."""
    claim: TeacherClaim | None
    """Null for a public teacher. Where a private one guides the loss, its events are composed with
    this run's in all figures here; where it labels, its claim is this record's, unchanged."""

    @model_validator(mode="after")
    def _told_in_one_way(self) -> Self:
        labels = self.guides == "labels"
        if (self.access == "private") != (self.claim is not None):
            raise ValueError("a private teacher has a claim, and a public one has none")
        if labels and self.claim is None:
            raise ValueError("a public teacher has no claim that this record could carry")
        guides = self.gain is not None and bool(self.terms)
        if labels != (self.public_images is not None) or labels == guides:
            raise ValueError("what the teacher did is not told in one way")
        return self
