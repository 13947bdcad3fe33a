"""Arguments of a student of public images."""

from __future__ import annotations

import pytest

from discreet.arguments.students import DEFAULT_CONF, read_student_arguments

GIVEN = {"teacher": "release", "model": "m.pt", "public_data": "d.yaml"}


@pytest.mark.parametrize(
    ("given", "conf"), [({}, DEFAULT_CONF), ({"conf": "none"}, DEFAULT_CONF), ({"conf": "0"}, 0)]
)
def test_a_least_confidence_of_0_is_one(given: dict[str, str], conf: float):
    assert read_student_arguments({**GIVEN, **given}).conf == conf
