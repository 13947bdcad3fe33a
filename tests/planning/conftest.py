"""Plans without the slowest accountant, where its numbers are not what is tested."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from discreet.planning import _seams


@pytest.fixture(scope="module")
def without_prv() -> Iterator[None]:
    """RDP answers in the place of PRV."""
    whole = _seams.accountant
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_seams, "accountant", lambda name: whole("rdp" if name == "prv" else name))
        yield
