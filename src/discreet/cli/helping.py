"""The pages of `--help`: plain text of 80 columns, from the tables that arguments are read by."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args, get_type_hints

from cyclopts import Parameter

from discreet.cli import audit, check, demo, ledger, plan, train, verify, version

SUMMARY = "print this page, or the page of a mode: discreet help train"
MODES: Mapping[str, str] = {
    "plan": plan.SUMMARY,
    "check": check.SUMMARY,
    "train": train.SUMMARY,
    "audit": audit.SUMMARY,
    "verify": verify.SUMMARY,
    "demo": demo.SUMMARY,
    "ledger": ledger.SUMMARY,
    "version": version.SUMMARY,
    "help": SUMMARY,
}

Row = tuple[str, object, str]  # name, default (None is not shown), what it does
_CHECK_ROWS: list[Row] = [("full", False, "go through all variants, engines and statistics")]

WIDTH = 80
NAME_COLUMNS = 20
DEFAULT_COLUMNS = 10


def overview() -> str:
    """The page of `discreet --help`."""
    return "\n".join(
        [
            "discreet: train YOLO detectors on private images with differential privacy",
            "",
            "Usage: discreet MODE [key=value …]      (--key value means the same)",
            "",
            "Modes",
            *_entries((name, None, text) for name, text in MODES.items()),
            "",
            "Switches of every mode",
            *_switches(),
            "",
            "Example",
            train.EXAMPLE,
        ]
    )


def page(mode: str) -> str:
    """The page of one mode."""
    if mode == "train":
        return _train_page()
    if mode == "plan":
        return "\n".join([_page(plan.USAGE, plan.ABOUT, plan_rows()), "", "Examples", plan.EXAMPLE])
    if mode == "check":
        return _page(
            "discreet check data=DATA.yaml model=WEIGHTS.pt epsilon=8 [--full] …",
            check.ABOUT,
            {"Arguments": [*_CHECK_ROWS, ("…", None, "those of `discreet train --help`")]},
        )
    if mode == "audit":
        usage = "discreet audit data=DATA.yaml model=WEIGHTS.pt epsilon=8 [key=value …]"
        text = _page(usage, audit.ABOUT, {"Arguments": audit.ROWS})
        return "\n".join([text, "", "Examples", audit.EXAMPLE])
    if mode == "demo":
        return _page("discreet demo [key=value …]", demo.ABOUT, {"Arguments": rows_of(demo.run)})
    if mode == "ledger":
        text = _page(ledger.USAGE, ledger.ABOUT, ledger_rows())
        return "\n".join([text, "", "Example", ledger.EXAMPLE])
    if mode == "verify":
        text = _page(verify.USAGE, verify.ABOUT, verify_rows())
        return "\n".join([text, "", "Example", verify.EXAMPLE])
    usage = f"discreet {mode} [MODE]" if mode == "help" else f"discreet {mode}"
    return _page(usage, MODES[mode], {})


def facts(mode: str | None) -> dict[str, object]:
    """The same as `--json` tells it."""
    if mode is None:
        return {"modes": dict(MODES)}
    sections = {
        "plan": plan_rows,
        "check": lambda: {"Check": _CHECK_ROWS, **train_rows()},
        "train": train_rows,
        "audit": lambda: {"Arguments": list(audit.ROWS)},
        "demo": lambda: {"Arguments": rows_of(demo.run)},
        "ledger": ledger_rows,
        "verify": verify_rows,
    }
    rows = sections[mode]() if mode in sections else {}
    told = [
        {"name": name, "section": section, "default": default, "help": text}
        for section, entries in rows.items()
        for name, default, text in entries
    ]
    refusals: dict[str, object] = {}
    if mode == "train":
        from discreet.arguments.refused import FIXED, REFUSED

        refusals["refused"] = {name: entry.why for name, entry in REFUSED.items()}
        refusals["fixed"] = {name: entry.why for name, entry in FIXED.items()}
    return {"mode": mode, "arguments": told, **refusals}


def train_rows() -> dict[str, list[Row]]:
    """Arguments of `discreet train` by section, privacy first."""
    from discreet.arguments.accepted import ACCEPTED
    from discreet.arguments.policy import UNSET
    from discreet.arguments.privacy import PrivacyArguments

    fields = PrivacyArguments.model_fields.items()
    sections: dict[str, list[Row]] = {
        "Privacy": [(name, field.default, field.description or "") for name, field in fields]
    }
    for title, entries in ACCEPTED.items():
        sections[title] = [
            (name, entry.default if entry.ours is UNSET else entry.ours, entry.help)
            for name, entry in entries.items()
        ]
    return sections


def ledger_rows() -> dict[str, list[Row]]:
    """Actions and arguments of `discreet ledger`."""
    return {
        "Actions": [(name, None, text) for name, text in ledger.ACTIONS.items()],
        "Arguments": [(name, None, text) for name, text in ledger.ARGUMENTS.items()],
    }


def plan_rows() -> dict[str, list[Row]]:
    """Arguments of `discreet plan`."""
    from discreet.arguments.plan import OWN, names
    from discreet.arguments.privacy import PrivacyArguments

    shared = PrivacyArguments.model_fields
    rows: list[Row] = [
        (name, OWN[name].default, OWN[name].help)
        if name in OWN
        else (name, shared[name].default, shared[name].description or "")
        for name in names()
    ]
    return {"Arguments": rows}


def verify_rows() -> dict[str, list[Row]]:
    """Arguments of `discreet verify`."""
    return {"Arguments": [(name, None, text) for name, text in verify.ARGUMENTS.items()]}


def rows_of(function: Callable[..., object]) -> list[Row]:
    """Arguments of a mode whose function declares them, with cyclopts' `Parameter(help=…)`."""
    hints: dict[str, Any] = get_type_hints(function, include_extras=True)
    rows: list[Row] = []
    for name, parameter in inspect.signature(function).parameters.items():
        declared = [x for x in get_args(hints[name]) if isinstance(x, Parameter)]
        if declared and declared[0].parse is not False:
            rows.append((name, parameter.default, declared[0].help or ""))
    return rows


def _train_page() -> str:
    from discreet.arguments.refused import FIXED, REFUSED

    text = _page(
        "discreet train data=DATA.yaml model=WEIGHTS.pt epsilon=8 [key=value …]",
        "Train a detector on private images. The folder release/ of the run may leave the "
        "building; internal/ may not. Sections after the first: Ultralytics' arguments, with "
        "their usual meaning and default.",
        train_rows(),
    )
    lists = [
        "Refused, because they would void the guarantee (give one to read why)",
        _list(REFUSED),
        "",
        "Held at one value in private runs",
        _list(FIXED),
        "",
        "Example",
        train.EXAMPLE,
    ]
    return "\n".join([text, "", *lists])


def _page(usage: str, about: str | None, sections: Mapping[str, Iterable[Row]]) -> str:
    lines = [f"Usage: {usage}", "", *textwrap.wrap(inspect.cleandoc(about or ""), width=WIDTH), ""]
    for title, rows in sections.items():
        lines += [title, *_entries(rows), ""]
    return "\n".join([*lines, "Switches", *_switches()])


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
