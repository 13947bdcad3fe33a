"""How each Ultralytics training argument stands to the guarantee.

Every key of Ultralytics' own configuration has one entry in `ULTRALYTICS`, so that a key that a
later version adds is unknown here, and refused, until somebody has judged it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Kind(enum.Enum):
    """What becomes of an Ultralytics argument in a private run."""

    ACCEPTED = "accepted"
    """Harmless to the guarantee, meaning as in Ultralytics."""

    PRIVACY = "privacy"
    """Has a meaning of its own here: a field of `PrivacyArguments`."""

    REFUSED = "refused"
    """Would void the guarantee, except at its harmless values."""

    FIXED = "fixed"
    """Has one value in private runs, because nothing else is built or has a meaning."""

    IRRELEVANT = "irrelevant"
    """Belongs to another mode or task."""


class _Unset(enum.Enum):
    UNSET = "unset"


UNSET = _Unset.UNSET


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One Ultralytics argument.

    Attributes:
        kind: What becomes of it.
        default: Ultralytics' default; a whole configuration file lists it without meaning it.
        help: What it does, for accepted arguments.
        values: Kind of value that an accepted argument takes, as a type annotation.
        ours: Value in private runs where none is given; `UNSET` leaves it to Ultralytics.
        harmless: Values of a refused argument that are accepted all the same.
        why: Why any other value is refused, as a sentence without its subject.
        instead: What to use instead, as sentences.
        with_partners: What a refused argument takes where an image has partners that may be mixed
            with it, other views of itself or public images; None if it is refused all the same.
    """

    kind: Kind
    default: object
    help: str = ""
    values: Any = object
    ours: object = UNSET
    harmless: tuple[object, ...] = ()
    why: str = ""
    instead: str = ""
    with_partners: Any = None


def accepted(default: object, values: Any, help: str, *, ours: object = UNSET) -> Argument:
    """An argument that is harmless to the guarantee."""
    return Argument(kind=Kind.ACCEPTED, default=default, values=values, help=help, ours=ours)


def refused(
    default: object,
    *,
    ours: object,
    why: str,
    instead: str,
    harmless: tuple[object, ...] = (),
    with_partners: Any = None,
) -> Argument:
    """An argument that would void the guarantee at other values than `ours` and `harmless`."""
    return Argument(
        kind=Kind.REFUSED,
        default=default,
        ours=ours,
        harmless=(ours, *harmless),
        why=why,
        instead=instead,
        with_partners=with_partners,
    )


def fixed(
    default: object,
    *,
    ours: object,
    why: str,
    instead: str = "",
    harmless: tuple[object, ...] = (),
) -> Argument:
    """An argument with one value in private runs, whatever Ultralytics' default."""
    return Argument(
        kind=Kind.FIXED,
        default=default,
        ours=ours,
        harmless=(ours, *harmless),
        why=why,
        instead=instead,
    )


def irrelevant(defaults: Mapping[str, object], *, why: str) -> dict[str, Argument]:
    """Arguments of another mode or task, accepted silently at Ultralytics' default."""
    return {
        name: Argument(kind=Kind.IRRELEVANT, default=default, harmless=(default,), why=why)
        for name, default in defaults.items()
    }


def harmless_value(argument: Argument, value: object) -> object:
    """The harmless value that `value` equals (0 and False are equal), or `UNSET`."""
    if not isinstance(value, bool | int | float | str | None):
        return UNSET
    folded = value.lower() if isinstance(value, str) else value
    return next((known for known in argument.harmless if known == folded), UNSET)
