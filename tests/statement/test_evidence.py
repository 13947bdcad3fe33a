"""The record's form knows the probes that there are, and no others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import discreet
from discreet.checking import PROBES
from discreet.statement.evidence import ProbeName

SOURCE = Path(discreet.__file__).parent


def probes_in(file: Path) -> Iterator[str]:
    """Names that a file gives to its findings."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.keyword(arg="probe", value=ast.Constant(value=str(name))):
                yield name
            case _:
                pass


def test_every_probe_has_a_place_in_the_record():
    files = [*SOURCE.glob("checking/*.py"), *SOURCE.glob("yolo/checking*.py")]
    named = {name for file in files for name in probes_in(file)}
    assert set(PROBES) <= named
    assert set(get_args(ProbeName)) == named
