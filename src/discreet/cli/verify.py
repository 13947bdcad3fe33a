"""`discreet verify`: whether a release is what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from discreet.errors import ConfigurationError, ReleaseError
from discreet.terminal import format_delta, format_epsilon

if TYPE_CHECKING:
    from discreet.statement.verify import Verification

SUMMARY = "check a release: its bytes, its signature, and ε worked out again"
USAGE = "discreet verify FOLDER [key=PUBLIC.pem]"
ABOUT = (
    "Compare every byte of a release with its statement, work out all its figures again from the "
    "events on record, and look for what must not be in it. Nothing in the folder is run, and "
    "nothing but the folder is needed. The exit status is 0 if all is as it says, else 2."
)
ARGUMENTS: Mapping[str, str] = {
    "FOLDER": "the release; as a word, or as release=FOLDER",
    "key": "public key (PEM) that has to have signed it; if left out, any key may have",
}
EXAMPLE = "  discreet verify runs/private/train/release key=hospital.pem"


def run(
    folder: str | None, given: Mapping[str, str], *, show: Callable[[str], None]
) -> dict[str, object]:
    """Verify a release, and return the facts.

    Args:
        folder: The release, if it was given as a word.
        given: Arguments as typed, name to text.
        show: Prints text for a person.

    Raises:
        ConfigurationError: An argument is missing or unknown.
        ReleaseError: The release is not what it says.
        StorageError: It cannot be read.
    """
    unknown = sorted(given.keys() - {"release", "key"})
    if unknown:
        raise ConfigurationError(
            "unknown argument", where=unknown[0], do="`discreet verify --help` lists them."
        )
    place = folder or given.get("release")
    if place is None or (folder and "release" in given):
        raise ConfigurationError("give one folder", where="verify", do=f"Write `{USAGE}`.")

    from discreet.statement.verify import verify_release  # late: help needs none of it

    key = Path(given["key"]) if "key" in given else None
    found = verify_release(Path(place), key=key)
    if not found.valid:
        error = ReleaseError(
            "NOT VALID: the release is not what it says",
            problems=found.faults,
            where=place,
            do="ask whoever gave it to you for another copy, and for the id of their key",
        )
        error.facts = found.to_json()
        raise error
    show(_told(found))
    return found.to_json()


def _told(found: Verification) -> str:
    """A valid release in a few lines."""
    from discreet.statement.page import percent

    record = found.record
    assert record is not None
    epsilon = float("inf") if record.claim.epsilon is None else record.claim.epsilon
    relation = record.unit.neighboring_relation.value.replace("_", " ")
    lines = [
        "valid: every byte is as stated, and every figure follows from the events",
        f"ε = {format_epsilon(epsilon)} at δ = {format_delta(record.claim.delta)}, "
        f"per {record.unit.kind.value}, {relation}",
    ]
    if record.figures.attack is not None and record.claim_valid:
        share = percent(record.figures.attack.balanced_accuracy)
        lines.append(f"an attacker is right at most {share} of the time; a coin, 50 %")
    return "\n".join([*lines, *found.notices])
