"""`discreet version`: what is installed."""

from __future__ import annotations

import platform
from importlib import metadata

from discreet import __version__

SUMMARY = "print the versions of discreet and of what the guarantee rests on"
PACKAGES = ("torch", "ultralytics", "dp-accounting", "opacus", "randomgen", "numpy")


def run() -> dict[str, object]:
    """Return name to version, without importing anything heavy."""
    versions: dict[str, object] = {"discreet": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def as_text(versions: dict[str, object]) -> str:
    """One line per package."""
    return "\n".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
