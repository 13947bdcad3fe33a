"""The record's form knows the probes that there are, and no others."""

from __future__ import annotations

from typing import cast, get_args

from discreet.checking import PROBES
from discreet.statement.evidence import ProbeName
from discreet.yolo import checking_data, checking_plan
from discreet.yolo.train import PrivateDetectionTrainer


def test_every_probe_has_a_place_in_the_record():
    nobody = cast(PrivateDetectionTrainer, None)  # only asked for names
    known = {*PROBES, *checking_data.probes(nobody, full=True), *checking_plan.probes(nobody)}
    assert set(get_args(ProbeName)) == known
