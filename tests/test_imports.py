"""The walls of the house: who may import what."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import discreet

PACKAGE = Path(discreet.__file__).parent
CORE = (
    "errors", "_validate", "privacy", "config", "performance", "randomness", "sampling",
    "clipping", "noise", "ledger", "step", "storage", "accounting", "planning", "recipes",
    "checking", "distributed", "launched", "arithmetic",
)  # fmt: skip


def imports_of(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def is_core(path: Path) -> bool:
    return path.relative_to(PACKAGE).with_suffix("").parts[0] in CORE


# The one file of the core that may import Opacus, and the one package of it: its numerics.
PRV = "accounting/_prv.py"


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_yolo_room_imports_ultralytics(path: Path):
    if path.relative_to(PACKAGE).parts[0] == "yolo":
        return
    assert not {name for name in imports_of(path) if name.split(".")[0] == "ultralytics"}


@pytest.mark.parametrize(
    "path", [p for p in FILES if is_core(p)], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_core_imports_neither_engines_nor_models(path: Path):
    rooms = ("discreet.gradients", "discreet.yolo", "discreet.cli", "opacus", "ultralytics")
    found = {n for n in imports_of(path) if f"{n}.".startswith(tuple(f"{r}." for r in rooms))}
    if path.relative_to(PACKAGE).as_posix() == PRV:
        found = {n for n in found if not f"{n}.".startswith("opacus.accountants.")}
    assert not found


def test_only_the_prv_numerics_import_opacus_accountants():
    using = [
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        if any(f"{name}.".startswith("opacus.accountants.") for name in imports_of(path))
    ]
    assert using == [PRV]


def test_the_core_exists():
    assert {p.relative_to(PACKAGE).with_suffix("").parts[0] for p in FILES if is_core(p)} == set(
        CORE
    )


def test_importing_the_package_is_inert():
    code = (
        "import os, sys; before = dict(os.environ); import discreet; "
        "assert dict(os.environ) == before; "
        "assert not {'torch', 'ultralytics', 'opacus'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_curated_exports_resolve():
    for name in discreet.__all__:
        assert getattr(discreet, name) is not None
    code = (
        "import discreet; assert set(discreet.__all__) <= set(dir(discreet))"  # none asked for yet
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match="nothing"):
        discreet.nothing  # noqa: B018
