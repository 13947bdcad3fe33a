"""From weights and a record to a whole release: pages, report, statement, a last look."""

from __future__ import annotations

import hashlib
from pathlib import Path

from discreet.errors import ReleaseError
from discreet.statement.files import ENVELOPE, RECORD, REPORT, WEIGHTS
from discreet.statement.page import render
from discreet.statement.report import ValidationFigures, render_report
from discreet.statement.scan import PrivateWords, scan_release
from discreet.statement.schema import PrivacyRecord, Weights, to_json
from discreet.statement.signing import ReleaseKey, make_envelope, make_statement
from discreet.storage import write_bytes, write_json, write_text


def seal(
    folder: Path,
    *,
    record: PrivacyRecord,
    key: ReleaseKey | None,
    words: PrivateWords,
    validation: ValidationFigures | None = None,
) -> PrivacyRecord:
    """Complete a folder that holds the weights, sign it, and look through it.

    Also for a release whose record has grown, such as by an audit: the weights stay as they are,
    all else is written anew.

    Args:
        folder: Holds `weights.pt`; what was sealed in it before is replaced.
        record: What to publish; digest and signer are filled in.
        key: Signs the release; None leaves it unsigned.
        words: What must not be in it.
        validation: Figures on public validation images, for the report.

    Returns:
        The record as published.

    Raises:
        ReleaseError: Something private, or unknown, is in the folder.
        StorageError: The disk refuses.
    """
    record = record.model_copy(
        update={
            "weights": Weights(file=WEIGHTS, sha256=sha256(folder / WEIGHTS)),
            "signer": None if key is None else key.signer,
        }
    )
    write_json(folder / RECORD, to_json(record))
    for name, text in render(record).items():
        write_text(folder / name, text)
    write_bytes(folder / REPORT, render_report(record, validation))
    (folder / ENVELOPE).unlink(missing_ok=True)
    digests = {path.name: sha256(path) for path in folder.iterdir() if path.is_file()}
    write_bytes(folder / ENVELOPE, make_envelope(make_statement(record, digests), key))
    faults = scan_release(folder, words=words)
    if faults:
        raise ReleaseError(
            "the release holds what must not leave, and is not published",
            problems=faults,
            where=str(folder),
            do="report this as a bug; the run can be finished with resume= once it is mended",
        )
    return record


def sha256(path: Path) -> str:
    """Digest of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
