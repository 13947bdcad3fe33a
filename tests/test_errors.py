from __future__ import annotations

import pytest

from discreet.arguments.problems import Problem, gather
from discreet.errors import ConfigurationError, DiscreetError


@pytest.mark.parametrize("password", ["secret", "s:e/c@r#et"])
def test_no_error_repeats_a_password(password: str):
    address = f"ledgr=postgresql://user:{password}@host/name"
    for error in (
        DiscreetError("wrong", where=address, do=f"not {address}"),
        ConfigurationError(f"{address} given twice"),
        gather([Problem(where=address, what="given twice"), Problem(where="x", what="wrong")]),
    ):
        told = f"{error} {error.what} {error.where} {error.do} {error.args}"
        assert password not in told
        assert "user:***@host/name" in told
