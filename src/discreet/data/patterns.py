"""Match a user's regular expression against many names, however the expression is built.

A pattern such as `(a+)+$` can take longer than the universe has been there, and Python's matcher
cannot be stopped from inside. So it runs in a process of its own that can.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import cast

SECONDS = 10.0
_SECONDS_PER_NAME = 1e-3

_PROGRAM = """\
import json, re, sys
pattern, texts = json.load(sys.stdin)
search = re.compile(pattern).search
json.dump([None if (found := search(text)) is None else found[1] for text in texts], sys.stdout)
"""


class PatternError(ValueError):
    """A pattern that cannot be used; the text says why."""


def match_all(pattern: str, texts: Sequence[str]) -> list[str | None]:
    """What the one group of a pattern holds in each text; None where it is not found.

    Args:
        pattern: A regular expression of Python with one group in parentheses.
        texts: What it is searched in.

    Raises:
        PatternError: It is no regular expression, has not one group, or takes too long.
    """
    try:
        groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternError(f"not a regular expression: {error}") from error
    if groups != 1:
        raise PatternError(
            f"expected one group in parentheses, the key, and found {groups}; "
            "write (?:…) for parentheses that are no key"
        )
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            input=json.dumps([pattern, list(texts)]),  # ASCII: file names may hold any bytes
            capture_output=True,
            encoding="ascii",
            timeout=SECONDS + len(texts) * _SECONDS_PER_NAME,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise PatternError(
            "it takes too long: no repetition inside of a repetition, such as (a+)+"
        ) from error
    except subprocess.CalledProcessError as error:
        raise PatternError("it could not be matched") from error
    return cast("list[str | None]", json.loads(done.stdout))
