"""The table of modes, in the order of the help page."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from discreet.cli import (
    audit,
    check,
    compare,
    demo,
    distill,
    helping,
    ledger,
    plan,
    train,
    verify,
    version,
)
from discreet.cli.mode import Call, Facts, Mode
from discreet.errors import ConfigurationError


def find_mode(word: str) -> Mode:
    """The mode of that name.

    Raises:
        ConfigurationError: If there is none.
    """
    if word in MODES:
        return MODES[word]
    if "=" in word or word.startswith("-"):
        raise ConfigurationError(
            "a mode comes first", where=word, do="Write `discreet train data=… model=… epsilon=8`."
        )
    close = difflib.get_close_matches(word.lower(), MODES, n=1)
    guess = f"; did you mean {close[0]}?" if close else ""
    raise ConfigurationError(
        f"unknown mode{guess}", where=word, do=f"The modes are {', '.join(MODES)}."
    )


def _help(call: Call) -> Facts:
    call.refuse_unknown((), mode="help")
    if call.word is None:
        call.show(helping.overview(MODES.values(), example=train.MODE.example))
        return {"modes": {mode.name: mode.summary for mode in MODES.values()}}
    mode = find_mode(call.word)
    call.show(helping.page(mode))
    return helping.facts(mode)


HELP = Mode(
    name="help",
    summary="print this page, or the page of a mode: discreet help train",
    usage="[MODE]",
    run=_help,
    takes_word=True,
)
MODES: Mapping[str, Mode] = {
    mode.name: mode
    for mode in (
        plan.MODE,
        check.MODE,
        train.MODE,
        distill.MODE,
        audit.MODE,
        verify.MODE,
        compare.MODE,
        demo.MODE,
        ledger.MODE,
        version.MODE,
        HELP,
    )
}
