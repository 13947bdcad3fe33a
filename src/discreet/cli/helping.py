"""The pages of `--help`: plain text of 80 columns, from the tables that arguments are read by."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from discreet.cli.mode import Mode, Row

WIDTH = 80
NAME_COLUMNS = 20
DEFAULT_COLUMNS = 10


def overview(modes: Iterable[Mode], *, example: str) -> str:
    """The page of `discreet --help`."""
    return "\n".join(
        [
            "discreet: train YOLO detectors on private images with differential privacy",
            "",
            "Usage: discreet MODE [key=value …]      (--key value means the same)",
            "",
            "Modes",
            *_entries((mode.name, None, mode.summary) for mode in modes),
            "",
            "Switches of every mode",
            *_switches(),
            "",
            "Example",
            example,
        ]
    )


def page(mode: Mode) -> str:
    """The page of one mode."""
    usage = f"Usage: discreet {mode.name} {mode.usage}".rstrip()
    lines = [usage, "", *textwrap.wrap(mode.about or mode.summary, width=WIDTH), ""]
    for title, rows in mode.rows().items():
        lines += [title, *_entries(rows), ""]
    lines += ["Switches", *_switches()]
    for (title, _), names in mode.lists().items():
        lines += ["", title, _list(names)]
    if mode.example:
        several = mode.example.count("  discreet ") > 1
        lines += ["", "Examples" if several else "Example", mode.example]
    return "\n".join(lines)


def facts(mode: Mode) -> dict[str, object]:
    """The same as `--json` tells it."""
    told = [
        {"name": name, "section": section, "default": default, "help": text}
        for section, entries in mode.rows().items()
        for name, default, text in entries
    ]
    lists = {key: dict(names) for (_, key), names in mode.lists().items()}
    return {"mode": mode.name, "arguments": told, **lists}


def _switches() -> list[str]:
    return _entries(
        [
            ("--json", None, "one JSON object on standard output, all else on standard error"),
            ("--debug", None, "print tracebacks of errors (also DISCREET_DEBUG=1)"),
            ("--help", None, "print the page of a mode"),
        ]
    )


def _entries(rows: Iterable[Row]) -> list[str]:
    """Columns for the name, the default where any row has one, and what it does."""
    rows = list(rows)
    with_default = any(default not in (None, "") for _, default, _ in rows)
    indent = NAME_COLUMNS + (DEFAULT_COLUMNS if with_default else 0)
    lines: list[str] = []
    for name, default, text in rows:
        head = f"  {name}".ljust(NAME_COLUMNS) + ("" if default is None else str(default))
        lines.append(
            textwrap.fill(
                text,
                width=WIDTH,
                initial_indent=f"{head.rstrip()} ".ljust(indent),
                subsequent_indent=" " * indent,
            )
        )
    return lines


def _list(names: Iterable[str]) -> str:
    return textwrap.fill(", ".join(names), width=WIDTH, initial_indent="  ", subsequent_indent="  ")
