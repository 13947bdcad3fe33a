"""What the launcher of `device=0,1` says of a process that died."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from discreet.cli.launching import _status_of  # pyright: ignore[reportPrivateUsage]


def failed(exitcode: int) -> SimpleNamespace:
    first = (1, SimpleNamespace(exitcode=exitcode))
    return SimpleNamespace(get_first_failure=lambda: first)


def test_a_process_that_said_why_is_not_spoken_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert _status_of(failed(2)) == 2
    assert capsys.readouterr().err == ""


def test_a_killed_process_is_named_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert _status_of(failed(-9)) == 2
    said = capsys.readouterr().err
    assert "process 2 of the run was ended by SIGKILL" in said and "resume=True" in said
    assert max(map(len, said.splitlines())) <= 80
