"""Plans without the slowest accountant, where its numbers are not what is tested."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from discreet.planning import figures, table


class Constant:
    def coarse(self) -> Constant:
        return self

    def epsilon(self, events: object, *, delta: float) -> float:
        return 1.0


@pytest.fixture(scope="module")
def without_prv() -> Iterator[None]:
    """A constant in the place of PRV."""
    whole = figures.make_accountant

    def some(name: Any, **options: Any) -> Any:
        return Constant() if name == "prv" else whole(name, **options)

    with pytest.MonkeyPatch.context() as patch:
        for room in (figures, table):
            patch.setattr(room, "make_accountant", some)
        yield
