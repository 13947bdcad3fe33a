"""The membership attack on losses: against the definitions."""

from __future__ import annotations

import numpy as np
import pytest

from discreet.auditing.membership import membership_curve
from discreet.errors import ConfigurationError


def test_auc_is_the_probability_that_a_member_s_loss_is_lower():
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 9, 83) / 4, rng.integers(2, 12, 59) / 4  # with ties
    pairs = (members[:, None] < others) + 0.5 * (members[:, None] == others)
    found = membership_curve(members, others)
    assert found.auc == pytest.approx(pairs.mean())
    assert (found.members, found.others) == (83, 59)


def test_the_curve_is_the_area_s():
    rng = np.random.default_rng(1)
    found = membership_curve(rng.normal(0, 1, 90), rng.normal(0.8, 1, 90))
    fpr, tpr = np.array(found.points).T
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all() and (np.diff(tpr) >= 0).all()
    assert np.trapezoid(tpr, fpr) == pytest.approx(found.auc, abs=0.01)


def test_tpr_at_a_low_fpr():
    others = np.arange(200.0)  # 1 % of them are two: 0 and 1 may be accused, 2 may not
    assert membership_curve([1.0, 1.5, 2.0, 9.0], others).tpr_at_1_percent_fpr == 0.5


def test_a_memorised_set_and_a_coin():
    assert membership_curve(np.zeros(50), np.ones(50)).auc == 1
    assert membership_curve(np.ones(50), np.ones(50)).auc == 0.5


def test_too_few_others_cannot_tell_one_percent():
    few, enough = (membership_curve(np.arange(50.0), np.arange(float(n))) for n in (4, 100))
    assert "4 images" in few.caveat and "25 %" in few.caveat
    assert few.to_json()["caveat"] == few.caveat
    assert enough.caveat == ""


def test_pictures_stay_small():
    rng = np.random.default_rng(2)
    assert len(membership_curve(rng.normal(size=5000), rng.normal(size=5000)).points) <= 200


@pytest.mark.parametrize(("members", "others"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_unusable_losses_are_refused(members: list[float], others: list[float]):
    with pytest.raises(ConfigurationError):
        membership_curve(members, others)
