"""`discreet version`: what is installed."""

from __future__ import annotations

import platform
from importlib import metadata

from discreet import __version__
from discreet.cli.mode import Call, Facts, Mode

PACKAGES = ("torch", "ultralytics", "dp-accounting", "opacus", "randomgen", "numpy")


def run(call: Call) -> Facts:
    """Show, and return, name to version, without importing anything heavy."""
    call.refuse_unknown((), mode="version")
    versions: dict[str, object] = {"discreet": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    call.show("\n".join(f"{name} {found or 'not installed'}" for name, found in versions.items()))
    return versions


MODE = Mode(
    name="version",
    summary="print the versions of discreet and of what the guarantee rests on",
    usage="",
    run=run,
)
