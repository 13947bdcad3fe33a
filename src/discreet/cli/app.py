"""From the words typed to an exit status.

0    done
1    an unexpected error: a bug, or a machine out of memory
2    a mistake that the user can mend: a `DiscreetError`
130  interrupted from the keyboard
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence

import cyclopts

from discreet.cli import audit, check, demo, helping, ledger, plan, train, verify, version
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
from discreet.terminal import Reporter, RichReporter, printable

ALIASES = {"--help": "help", "-h": "help", "--version": "version", "-V": "version"}
Facts = Mapping[str, object]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Words after the program's name; those of this process if not given.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    words, as_json = _take_switch(words, "json")
    words, debug = _take_switch(words, "debug")
    debug = debug or os.environ.get("DISCREET_DEBUG", "") not in ("", "0")
    try:
        if as_json:
            with reserved_stdout() as stdout:
                status, facts = _guarded(words, as_json=True, debug=debug)
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


def _guarded(words: Sequence[str], *, as_json: bool, debug: bool) -> tuple[int, Facts]:
    """Run, and turn exceptions into an exit status and facts."""
    try:
        return OK, _run(words, as_json=as_json)
    except DiscreetError as error:
        if debug:
            say_error("".join(traceback.format_exception(error)))
        say_error(f"error: {error}")
        return MENDABLE, error_facts(error)
    except KeyboardInterrupt as error:
        hint = " ".join(filter(None, [str(error), hint_of(error)]))
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
    words = [ALIASES.get(words[0], words[0]), *words[1:]] if words else ["help"]
    mode, rest = words[0], words[1:]
    if mode not in helping.MODES:
        raise _unknown_mode(mode)
    if "--help" in rest or "-h" in rest:
        mode, rest = "help", [mode]
    if mode in ("train", "check", "audit", "plan", "demo"):
        rest = _options(mode, rest)
    elif mode in ("ledger", "verify"):
        bare = 1 if rest and _is_bare(rest[0]) else 0  # the action, or the folder
        rest = [*rest[:bare], *_options(mode, rest[bare:])]
    # Facts for a program go to standard output alone; a person reads the story there.
    reporter = RichReporter(sys.stderr if as_json else sys.stdout)
    application = _application(reporter, show=_say_nothing if as_json else _say)
    try:
        command, bound, _ = application.parse_args(
            [mode, *rest], exit_on_error=False, print_error=False
        )
    except cyclopts.CycloptsError as error:
        raise ConfigurationError(
            str(error).strip(), do=f"`discreet {mode} --help` lists its arguments."
        ) from error
    with contextlib.closing(reporter):
        return command(*bound.args, **bound.kwargs)


def _say(text: str) -> None:
    print(printable(text, sys.stdout.encoding))


def _say_nothing(text: str) -> None:
    del text


def _options(mode: str, words: Sequence[str]) -> list[str]:
    from discreet import arguments  # late: help does not need the tables' checks
    from discreet.cli.grammar import to_options

    flags = {
        "check": lambda name: name == "full" or arguments.is_flag(name),
        "demo": demo.is_flag,
        "ledger": lambda _: False,
        "plan": arguments.is_plan_flag,
        "verify": lambda _: False,
    }
    return to_options(words, is_flag=flags.get(mode, arguments.is_flag))


def _is_bare(word: str) -> bool:
    return "=" not in word and not word.startswith("-")


def _application(reporter: Reporter, *, show: Callable[[str], None]) -> cyclopts.App:
    """The modes as commands, each of which returns facts.

    Args:
        reporter: Hears what happens in a run.
        show: Prints a page for a person.
    """
    app = cyclopts.App(name="discreet", help_flags=[], version_flags=[])

    @app.command(name="train")
    def _train(**given: str) -> Facts:
        return train.run(given, reporter=reporter)

    @app.command(name="ledger")
    def _ledger(action: str | None = None, /, **given: str) -> Facts:
        return ledger.run(action, given, show=show)

    @app.command(name="plan")
    def _plan(**given: str) -> Facts:
        return plan.run(given, reporter=reporter, show=show)

    @app.command(name="check")
    def _check(**given: str) -> Facts:
        return check.run(given, reporter=reporter, show=show)

    @app.command(name="audit")
    def _audit(**given: str) -> Facts:
        return audit.run(given, reporter=reporter)

    @app.command(name="verify")
    def _verify(folder: str | None = None, /, **given: str) -> Facts:
        return verify.run(folder, given, show=show)

    @app.command(name="version")
    def _version() -> Facts:
        versions = version.run()
        show(version.as_text(versions))
        return versions

    @app.command(name="help")
    def _help(mode: str | None = None, /) -> Facts:
        if mode is not None and mode not in helping.MODES:
            raise _unknown_mode(mode)
        show(helping.overview() if mode is None else helping.page(mode))
        return helping.facts(mode)

    app.command(functools.partial(demo.run, reporter=reporter), name="demo")
    return app


def _unknown_mode(word: str) -> ConfigurationError:
    if "=" in word or word.startswith("-"):
        return ConfigurationError(
            "a mode comes first", where=word, do="Write `discreet train data=… model=… epsilon=8`."
        )
    close = difflib.get_close_matches(word.lower(), helping.MODES, n=1)
    guess = f"; did you mean {close[0]}?" if close else ""
    return ConfigurationError(
        f"unknown mode{guess}", where=word, do=f"The modes are {', '.join(helping.MODES)}."
    )
