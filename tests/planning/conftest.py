"""Plans without the slowest accountant, where its numbers are not what is tested."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from discreet.planning import _seams


class Constant:
    def coarse(self) -> Constant:
        return self

    def epsilon(self, events: object, *, delta: float) -> float:
        return 1.0


@pytest.fixture(scope="module")
def without_prv() -> Iterator[None]:
    """A constant in the place of PRV."""
    whole = _seams.accountant
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            _seams, "accountant", lambda name: Constant() if name == "prv" else whole(name)
        )
        yield
