"""Whether a release is what it says, found out by a stranger who has the folder and no more.

Nothing of the release is run. First its bytes are compared with its statement; only if they
agree is there a point in working out ε again.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from discreet import __version__
from discreet.errors import StorageError
from discreet.statement import strict_json
from discreet.statement.archive import architecture_name, read_weights, summary_inside
from discreet.statement.consistency import examine
from discreet.statement.files import ENVELOPE, LARGEST, RECORD, RELEASED, REPORT, WEIGHTS
from discreet.statement.page import render
from discreet.statement.record import mechanism_of, warnings_of
from discreet.statement.report.repeating import report_faults
from discreet.statement.scan import scan_release
from discreet.statement.schema import PrivacyRecord, Signer
from discreet.statement.sealing import sha256
from discreet.statement.signing import envelope_faults, make_statement, read_public_key
from discreet.statement.summary import KEY, as_model_name, summarise

Pages = Literal["redrawn", "not checked"]
STRAY = "it does not belong into a release"  # a fault of a file


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found out about a release.

    Attributes:
        valid: Whether all of it is as its statement says, and ε as the events give it. It does
            not say that the run was private: that is `claim_valid`; nor that the pages say what
            the record says: that is `pages`.
        pages: "redrawn" if report and pages were drawn again from the record, and are the same
            byte for byte. "not checked" if another version of this program is said to have drawn
            them: they run and load nothing, but what they say was compared with nothing.
        faults: What is not, as `file: what`.
        notices: What the reader should know.
        record: The content of `privacy.json`; None where it cannot be read.
        key_is_known: Whether the key that was given signed the release; None if none was given.
    """

    valid: bool
    pages: Pages = "not checked"
    faults: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    record: PrivacyRecord | None = field(default=None, repr=False)
    key_is_known: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        record = self.record
        signer = None if record is None else record.signer
        return {
            "valid": self.valid,
            "pages": self.pages,
            "claim_valid": None if record is None else record.claim_valid,
            "epsilon": None if record is None else record.claim.epsilon,
            "delta": None if record is None else record.claim.delta,
            "signed": signer is not None,
            "key_id": None if signer is None else signer.key_id,
            "key_is_known": self.key_is_known,
            "faults": list(self.faults),
            "notices": list(self.notices),
        }


def verify_release(folder: Path, *, key: Path | None = None) -> Verification:
    """Verify a release.

    Args:
        folder: The release.
        key: A public key (PEM) that has to have signed it; without one, any key may have.

    Raises:
        StorageError: The folder cannot be read.
        ConfigurationError: `key` is no Ed25519 key.
    """
    wanted = None if key is None else read_public_key(key)
    try:
        digests, faults = _read_folder(folder)
        if faults:
            return Verification(valid=False, faults=tuple(faults))
        record, faults = _read_record(folder / RECORD)
        faults += _integrity_faults(folder, record, digests)
        if record is None or faults:
            return Verification(valid=False, faults=tuple(faults), record=record)
        return _verify_content(folder, record, wanted)
    except OSError as error:
        raise StorageError(
            f"the release cannot be read ({error.strerror or error})",
            where=str(folder),
            do="give the folder of a release, which holds privacy.json",
        ) from error


def _read_folder(folder: Path) -> tuple[dict[str, str], list[str]]:
    """sha256 of each file, and what there is too much or too little of."""
    paths = sorted(folder.iterdir())
    names = {path.name for path in paths}
    faults = [f"{name}: it is missing" for name in RELEASED if name not in names]
    for path in paths:
        if path.name not in RELEASED:
            faults.append(f"{path.name}: {STRAY}")
        elif path.is_symlink() or not path.is_file():
            faults.append(f"{path.name}: it is not a file")
        elif path.stat().st_size > LARGEST[path.name]:
            faults.append(f"{path.name}: it is larger than that of any release")
    if faults:
        return {}, faults
    return {path.name: sha256(path) for path in paths if path.name != ENVELOPE}, []


def _read_record(path: Path) -> tuple[PrivacyRecord | None, list[str]]:
    data = path.read_bytes()
    try:
        strict_json.loads(data)
        return PrivacyRecord.model_validate_json(data), []
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        return None, [f"{RECORD}: {where}: {first['msg']} ({error.error_count()} such)"]
    except ValueError as error:
        return None, [f"{RECORD}: {error}"]


def _integrity_faults(
    folder: Path, record: PrivacyRecord | None, digests: Mapping[str, str]
) -> list[str]:
    """Whether every byte is the one that was stated, and perhaps signed."""
    data = (folder / ENVELOPE).read_bytes()
    stated = _stated_digests(data)
    faults = [
        f"{name}: it was changed, or is not stated"
        for name, digest in digests.items()
        if stated.get(name) != digest
    ]
    faults += [f"{name}: it is missing" for name in stated if name not in digests]
    if record is None:
        return faults
    if record.weights is None or record.weights.sha256 != digests[WEIGHTS]:
        faults.append(f"{WEIGHTS}: it is not the one that {RECORD} speaks of")
    wrong = envelope_faults(data, statement=make_statement(record, digests), signer=record.signer)
    return [*faults, *(f"{ENVELOPE}: {what}" for what in wrong)]


def _stated_digests(envelope: bytes) -> dict[str, str]:
    """What the statement says, whoever signed it; nothing where it cannot be read."""
    try:
        payload = base64.b64decode(strict_json.loads(envelope)["payload"])
        return {
            entry["name"]: entry["digest"]["sha256"]
            for entry in strict_json.loads(payload)["subject"]
        }
    except (ValueError, KeyError, TypeError):
        return {}


def _verify_content(folder: Path, record: PrivacyRecord, wanted: Signer | None) -> Verification:
    """All that a matching digest does not prove."""
    found = examine(record)
    faults = [f"{RECORD}: {what}" for what in found.faults]
    faults += scan_release(folder)
    faults += _weights_faults(folder, record)
    redrawn = [] if found.faults else _redrawing_faults(folder, record)
    own = record.software.packages.get("discreet") == __version__
    if own:
        faults += redrawn
    known = None if wanted is None else record.signer == wanted
    if known is False:
        faults.append(f"{ENVELOPE}: it is not signed with the key that was given")
    notices = [*found.notices, *_what_to_know(record, known=known)]
    same = not redrawn and not found.faults  # of figures that are wrong there is no right page
    return Verification(
        valid=not faults,
        pages="redrawn" if same else "not checked",
        faults=tuple(faults),
        notices=tuple(notices),
        record=record,
        key_is_known=known,
    )


def _weights_faults(folder: Path, record: PrivacyRecord) -> list[str]:
    """Whether the claim inside the weights is the record's, in both places."""
    weights = read_weights(folder / WEIGHTS)
    found = summary_inside(weights, KEY), architecture_name(weights)  # exports carry the latter
    if found == (summarise(record), as_model_name(record)):
        return []
    return [f"{WEIGHTS}: the claim inside it is not that of {RECORD}"]


def _redrawing_faults(folder: Path, record: PrivacyRecord) -> list[str]:
    """Which pages this version of the program would draw another way."""
    faults = [
        f"{name}: it is not the page of this record"
        for name, text in render(record).items()
        if (folder / name).read_bytes() != text.encode()
    ]
    installed = mechanism_of(record).make_accountant().version
    same = installed == record.accountant.version
    found = report_faults((folder / REPORT).read_bytes(), record, same_accountant=same)
    return [*faults, *(f"{REPORT}: {what}" for what in found)]


def _what_to_know(record: PrivacyRecord, *, known: bool | None) -> list[str]:
    notices: list[str] = []
    if record.signer is None:
        notices.append("not signed: the folder agrees with itself, and anybody could have made it")
    elif known is None:
        notices.append(
            f"signed with key {record.signer.key_id}: whose it is, no file in the folder can "
            "prove; give key=PUBLIC.pem, from somebody you trust"
        )
    if not record.claim_valid:
        notices.append(f"the run is NOT PRIVATE: {'; '.join(record.claim.reasons_against)}")
    return [*notices, *warnings_of(record)]
