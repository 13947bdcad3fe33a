"""A planted mistake: a small patch of a correct run, and which tools have to see it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest

from .runs import Run


class Tool(Enum):
    """Where a mistake can be seen. The value heads a column of the table."""

    CONFIGURATION = "configuration"
    CHECK = "check"
    STATISTICS = "statistics"
    LEDGER = "ledger"
    AUDIT = "audit"
    VERIFY = "verify"
    SCAN = "release scan"

    def look(self, run: Run) -> list[str]:
        """Alarms that the tool raises about a run; none where it is in order."""
        return getattr(run, self.name.lower())()


@dataclass(frozen=True, kw_only=True)
class Plant:
    """One mistake.

    Attributes:
        name: What the mistake is called.
        why: What is wrong with it, in a sentence.
        runs: The runs that it is planted in.
        plant: Plants it: patches the code, or changes what the run is asked for.
        found_by: Tools that see it, and a pattern of what each of them says.
        probes: Probes of the small step's check that fail, and nothing else does.
        slow: Tools that take long.
    """

    name: str
    why: str
    runs: tuple[Callable[..., Run], ...]
    plant: Callable[[pytest.MonkeyPatch, Any], None]
    found_by: Mapping[Tool, str]
    probes: frozenset[str] = frozenset()
    slow: frozenset[Tool] = frozenset()

    @contextmanager
    def planted(self, run: Run) -> Generator[None]:
        """The mistake is there meanwhile."""
        with pytest.MonkeyPatch.context() as patch:
            self.plant(patch, run)
            run.before_a_stranger_looks = patch.undo
            yield


def wrap(patch: pytest.MonkeyPatch, owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a function by `around(own, …)`, which gets the function and its arguments."""
    own = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **kwargs: around(own, *args, **kwargs))
