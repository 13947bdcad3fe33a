"""From the words typed to an exit status.

0    done
1    an unexpected error: a bug, or a machine out of memory
2    a mistake that the user can mend: a `DiscreetError`
130  interrupted: from the keyboard, or by SIGTERM
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Generator, Sequence

from discreet.cli.grammar import to_pairs
from discreet.cli.launching import devices_asked, start_processes
from discreet.cli.mode import Call, Facts
from discreet.cli.modes import HELP, find_mode
from discreet.cli.output import (
    INTERRUPTED,
    MENDABLE,
    OK,
    UNEXPECTED,
    drop_stdout,
    error_facts,
    hint_of,
    reserved_stdout,
    save_traceback,
    say_error,
    write_json,
)
from discreet.errors import ConfigurationError, DiscreetError
from discreet.launched import place_of_process
from discreet.terminal import RichReporter, printable

# Seconds that a silent process ends after the one that speaks for it: a launcher ends all processes
# as soon as one has failed.
_FIRST_SPEAKS = 2.0
ALIASES = {"--help": "help", "-h": "help", "--version": "version", "-V": "version"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Words after the program's name; those of this process if not given.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    typed = words
    words, as_json = _take_switch(words, "json")
    words, debug = _take_switch(words, "debug")
    if (processes := devices_asked(words)) > 1:
        return start_processes(typed, count=processes)
    debug = debug or os.environ.get("DISCREET_DEBUG", "") not in ("", "0")
    try:
        if as_json:
            with reserved_stdout() as stdout:
                status, facts = _guarded(words, as_json=True, debug=debug)
                if place_of_process().rank == 0:
                    write_json(facts, stdout)
        else:
            status, _ = _guarded(words, as_json=False, debug=debug)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone: `discreet help train | head`
        drop_stdout()
        return UNEXPECTED
    return status


def _take_switch(words: Sequence[str], name: str) -> tuple[list[str], bool]:
    """Take a switch of the command line itself, such as `--json`, out of the words.

    Args:
        words: What was typed.
        name: The switch: `--json`, `--json=true` and `json=true` set it.

    Returns:
        The other words, and whether it was set.
    """
    others: list[str] = []
    is_set = False
    for word in words:
        key, _, value = word.removeprefix("--").partition("=")
        if key == name and word != name and value.lower() in ("", "true", "false"):
            is_set = value.lower() != "false"
        else:
            others.append(word)
    return others, is_set


@contextlib.contextmanager
def _ending_in_order() -> Generator[None]:
    """SIGTERM, as batch systems and containers send it, ends as Ctrl-C does: to be resumed.

    Not where a launcher started several processes: it ends all as soon as one has failed.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or place_of_process().size > 1:
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _guarded(words: Sequence[str], *, as_json: bool, debug: bool) -> tuple[int, Facts]:
    """Run, and turn exceptions into an exit status and facts."""
    speaks = place_of_process().local_rank == 0  # for all processes of its host: they fail together
    try:
        with _ending_in_order():
            return OK, _run(words, as_json=as_json)
    except DiscreetError as error:
        if not speaks:
            time.sleep(_FIRST_SPEAKS)
        if debug:
            say_error("".join(traceback.format_exception(error)))
        if speaks:
            say_error(f"error: {error}")
        return MENDABLE, error_facts(error)
    except KeyboardInterrupt as error:
        hint = " ".join(filter(None, [str(error), hint_of(error)]))
        if speaks:
            say_error(f"interrupted{f': {hint}' if hint else ''}")
        return INTERRUPTED, error_facts(error)
    except BrokenPipeError:
        raise
    except Exception as error:
        say_error(f"unexpected error: {type(error).__name__}: {error}")
        if debug:
            say_error("".join(traceback.format_exception(error)))
        elif path := save_traceback(error):
            say_error(f"  The traceback is in {path}: it may name private files.")
        return UNEXPECTED, error_facts(error)


def _run(words: Sequence[str], *, as_json: bool) -> Facts:
    first, *rest = words or ["help"]
    mode = find_mode(ALIASES.get(first, first))
    if place_of_process().size > 1 and not mode.takes_team:
        raise ConfigurationError(
            "runs in one process",
            where=mode.name,
            do="Start it without torchrun: only train is shared among processes.",
        )
    if "--help" in rest or "-h" in rest:
        mode, rest = HELP, [mode.name]
    word = rest.pop(0) if mode.takes_word and rest and _is_bare(rest[0]) else None
    given = to_pairs(rest, is_flag=mode.is_flag)
    # Facts for a program go to standard output alone; a person reads the story there.
    reporter = RichReporter(sys.stderr if as_json else sys.stdout)
    with contextlib.closing(reporter):
        show = _say_nothing if as_json else _say
        return mode.run(Call(given=given, word=word, reporter=reporter, show=show))


def _say(text: str) -> None:
    print(printable(text, sys.stdout.encoding))


def _say_nothing(text: str) -> None:
    del text


def _is_bare(word: str) -> bool:
    return "=" not in word and not word.startswith("-")
