"""What a mode of the command line is: all that the program and its help know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from discreet.arguments.problems import gather
from discreet.arguments.suggestions import unknown_argument
from discreet.terminal import Reporter

Facts = Mapping[str, object]
Row = tuple[str, object, str]
"""An argument: its name, its default (None is not shown), what it does."""
Rows = Mapping[str, Sequence[Row]]
"""Arguments by section of the help page."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a mode was called with.

    Attributes:
        given: Arguments as typed, name to text.
        word: The word after the mode, where the mode takes one and it was given.
        reporter: Hears what happens.
        show: Prints a page for a person.
    """

    given: Mapping[str, str]
    word: str | None
    reporter: Reporter
    show: Callable[[str], None]

    def refuse_unknown(self, known: Iterable[str], *, mode: str) -> None:
        """Raise what is wrong with the names, if anything is.

        Raises:
            ConfigurationError: An argument is none of these.
        """
        known = tuple(known)
        problems = [
            unknown_argument(name, value, known, mode=mode)
            for name, value in self.given.items()
            if name not in known
        ]
        if problems:
            raise gather(problems)


def _no_rows() -> Rows:
    return {}


def _never(_: str) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A mode.

    Attributes:
        name: As typed after `discreet`.
        summary: One line.
        usage: What else is typed.
        run: Does it, and returns its facts, which are printed with `--json`.
        about: A paragraph.
        example: Command lines.
        rows: Returns its arguments by section of the help page; asked for late, since tables take
            time to import.
        lists: Further names by title of the help page and key of its JSON, with reasons.
        is_flag: Told an argument's name, returns whether it may stand without a value, meaning
            True.
        takes_team: Whether several processes may run it together, under torchrun.
        takes_word: Whether a word may come before the arguments, such as an action or a folder.
    """

    name: str
    summary: str
    usage: str
    run: Callable[[Call], Facts]
    about: str = ""
    example: str = ""
    rows: Callable[[], Rows] = _no_rows
    lists: Callable[[], Mapping[tuple[str, str], Mapping[str, str]]] = dict
    is_flag: Callable[[str], bool] = _never
    takes_team: bool = False
    takes_word: bool = False
