"""JSON that means one thing: no key twice, no NaN, no infinity."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def loads(data: bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: If it is not JSON in UTF-8, gives a key twice, or has a number that JSON has
            not.
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_no_such_number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def _no_such_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")
