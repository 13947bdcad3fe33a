"""Where words go: facts to standard output, progress and errors beside them.

With `--json`, standard output carries exactly one JSON object, also for errors; whatever else is
printed meanwhile, by any library or child process, goes to standard error.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import numbers
import os
import sys
import tempfile
import traceback
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TextIO, cast

from discreet.errors import DiscreetError
from discreet.terminal import printable

OK, UNEXPECTED, MENDABLE, INTERRUPTED = 0, 1, 2, 130  # exit statuses


@contextlib.contextmanager
def reserved_stdout() -> Generator[TextIO]:
    """Yield the real standard output, while all other printing goes to standard error."""
    original = sys.stdout
    original.flush()
    try:
        descriptor = original.fileno()
        error_descriptor = sys.stderr.fileno()
    except (OSError, ValueError):  # a stand-in without a descriptor: a test, a notebook
        with contextlib.redirect_stdout(sys.stderr):
            yield original
        return
    saved = os.dup(descriptor)
    os.dup2(error_descriptor, descriptor)
    try:
        with (
            os.fdopen(os.dup(saved), "w", encoding=original.encoding) as real,
            contextlib.redirect_stdout(sys.stderr),
        ):
            yield real
    finally:
        original.flush()
        os.dup2(saved, descriptor)
        os.close(saved)


def write_json(facts: Mapping[str, object], stream: TextIO) -> None:
    """Write one JSON object on one line."""
    utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(_plain(facts), ensure_ascii=not utf8, allow_nan=False), file=stream)
    stream.flush()


def _plain(value: object) -> object:
    """JSON's own types: paths become text, infinite numbers null."""
    match value:
        case None | bool() | str():
            return value
        case numbers.Integral():
            return int(value)
        case numbers.Real():
            return float(value) if math.isfinite(value) else None
        case Mapping():
            items = cast("Mapping[object, object]", value).items()
            return {str(key): _plain(item) for key, item in items}
        case list() | tuple():
            return [_plain(item) for item in cast("list[object]", value)]
        case _:
            return str(value)


def error_facts(error: BaseException) -> dict[str, object]:
    """What `--json` says about an error."""
    facts: dict[str, object] = {"type": type(error).__name__}
    if isinstance(error, DiscreetError):
        facts |= {"message": error.what, "where": error.where, "do": error.do}
        if problems := getattr(error, "problems", ()):
            facts["problems"] = list(problems)
    else:
        facts |= {"message": str(error), "where": None, "do": hint_of(error)}
    return {"error": facts, **getattr(error, "facts", {})}


def hint_of(error: BaseException) -> str | None:
    """What the code that let an exception pass says to do about it: its notes (PEP 678)."""
    return " ".join(getattr(error, "__notes__", ())) or None


def say_error(text: str) -> None:
    """Print to standard error, if it is still there."""
    with contextlib.suppress(OSError, ValueError):
        encoding = getattr(sys.stderr, "encoding", None)
        print(printable(text, encoding), file=sys.stderr, flush=True)


def save_traceback(error: BaseException) -> Path | None:
    """Write the traceback of an unexpected error to a file of its own, for a bug report."""
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="discreet-traceback-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
            return Path(file.name)
    except OSError:
        return None


def drop_stdout() -> None:
    """After a reader is gone: keep Python from failing again when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
