"""`discreet verify`: whether a release is what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from discreet.cli.mode import Call, Facts, Mode, Row
from discreet.errors import ConfigurationError, ReleaseError
from discreet.terminal import format_delta, format_epsilon

if TYPE_CHECKING:
    from discreet.statement.verify import Verification

_USAGE = "FOLDER [key=PUBLIC.pem]"
_ARGUMENTS: Mapping[str, str] = {
    "FOLDER": "the release; as a word, or as release=FOLDER",
    "key": "public key (PEM) that has to have signed it; if left out, any key may have",
}


def run(call: Call) -> Facts:
    """Verify a release, and return the facts.

    Raises:
        ConfigurationError: An argument is missing or unknown.
        ReleaseError: The release is not what it says.
        StorageError: It cannot be read.
    """
    call.refuse_unknown(("release", "key"), mode="verify")
    place = call.word or call.given.get("release")
    if place is None or (call.word and "release" in call.given):
        raise ConfigurationError(
            "give one folder", where="verify", do=f"Write `discreet verify {_USAGE}`."
        )

    from discreet.statement.verify import verify_release  # late: help needs none of it

    key = Path(call.given["key"]) if "key" in call.given else None
    found = verify_release(Path(place), key=key)
    if not found.valid:
        error = ReleaseError(
            "NOT VALID: the release is not what it says",
            problems=found.faults,
            where=place,
            do=_advice(found.faults),
        )
        error.facts = found.to_json()
        raise error
    call.show(_told(found))
    return found.to_json()


def _advice(faults: Sequence[str]) -> str:
    from discreet.statement.verify import STRAY

    ask = "ask whoever gave it to you for another copy, and for the id of their key"
    if any(STRAY in fault for fault in faults):
        return f"remove what does not belong if you put it there, as an export does; else {ask}"
    return ask


def _told(found: Verification) -> str:
    """A valid release in a few lines."""
    from discreet.statement.page import percent

    record = found.record
    assert record is not None
    epsilon = float("inf") if record.claim.epsilon is None else record.claim.epsilon
    relation = record.unit.neighboring_relation.value.replace("_", " ")
    lines = [
        _headline(found),
        f"ε = {format_epsilon(epsilon)} at δ = {format_delta(record.claim.delta)}, "
        f"per {record.unit.kind.value}, {relation}",
    ]
    if record.figures.attack is not None and record.claim_valid:
        share = percent(record.figures.attack.balanced_accuracy)
        lines.append(f"an attacker is right at most {share} of the time; a coin, 50 %")
    return "\n".join([*lines, *found.notices])


def _headline(found: Verification) -> str:
    """What was checked, and no more than that."""
    from discreet.statement.files import PAGES, RECORD, REPORT

    if found.pages == "redrawn":
        return "valid: every byte is as stated, and every figure follows from the events"
    return (
        f"valid, pages NOT CHECKED: every byte is as stated, and every figure of {RECORD} follows "
        f"from the events; but another version of discreet drew {', '.join(PAGES.values())} and "
        f"{REPORT}, and nothing tells that they say the same: believe {RECORD}, or verify with "
        "the version that it names"
    )


def _rows() -> dict[str, list[Row]]:
    return {"Arguments": [(name, None, text) for name, text in _ARGUMENTS.items()]}


MODE = Mode(
    name="verify",
    summary="check a release: its bytes, its signature, and ε worked out again",
    usage=_USAGE,
    about=(
        "Compare every byte of a release with its statement, work out all its figures again from "
        "the events on record, and look for what must not be in it. Nothing in the folder is run, "
        "and nothing but the folder is needed. The exit status is 0 if all is as it says, else 2. "
        "Pages that another version drew cannot be compared with the record: that is said, and "
        '`pages` in the JSON is then "not checked" instead of "redrawn".'
    ),
    example="  discreet verify runs/private/train/release key=hospital.pem",
    run=run,
    rows=_rows,
    takes_word=True,
)
