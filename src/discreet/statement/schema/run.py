"""What was trained, on what, by what, and whose key signs it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from discreet.statement.part import (
    CountFromOne,
    Part,
    Sha256,
    Words,
)


class Training(Part):
    """What was trained."""

    trainable: Words
    """Parts of the model, joined by +."""
    trained_parameters: CountFromOne
    norm: Literal["frozen", "group", "batch"]
    """How normalisation is kept from mixing images: public statistics, or GroupNorm. batch: it is
    not, as nothing private was seen."""
    engine: Literal["discreet", "opacus", "reference", "ultralytics"]
    """What computed the gradients of single images; ultralytics: nothing, as none was private."""


class Weights(Part):
    """The released weights, beside this record."""

    file: str
    sha256: Sha256


class Software(Part):
    """Versions of what the guarantee rests on."""

    python: Words
    packages: dict[Words, Words]


class Hardware(Part):
    """The kind of machine, no more."""

    system: Words
    machine: Words
    accelerator: Words | None
    """Model of the GPU; null where the run used the CPU."""


class Signer(Part):
    """Whose key signs the release."""

    algorithm: Literal["ed25519"]
    key_id: Sha256
    public_key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """32 bytes, hexadecimal."""
