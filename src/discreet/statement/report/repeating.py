"""Whether a report says what its record says: it is drawn again and compared."""

from __future__ import annotations

import re

from discreet.statement.report.embedding import extract
from discreet.statement.report.page import MOST_BYTES, render_report
from discreet.statement.schema import PrivacyRecord

_CURVE = re.compile(rb' d="[^"]*"')


def report_faults(data: bytes, record: PrivacyRecord, *, same_accountant: bool) -> list[str]:
    """What is wrong with a report of this version of the program.

    Args:
        data: The file's bytes.
        record: The record that it has to be of.
        same_accountant: Whether the accountant that drew its curves is installed: another
            version may draw them a little apart, and then they are not compared.
    """
    if len(data) > MOST_BYTES:
        return ["it is larger than a report can be"]
    try:
        again = render_report(record, extract(data.decode()))
    except ValueError:
        return ["its figures are not in the form of a report's"]
    if not same_accountant:
        data, again = _CURVE.sub(b"", data), _CURVE.sub(b"", again)
    return [] if data == again else ["it is not the report of this record"]
