from __future__ import annotations

import pickle

import numpy as np
import pytest

from discreet import randomness
from discreet.randomness import InsecureSource, SecureSource, make_source


def test_known_answer_fails_for_another_cipher(monkeypatch: pytest.MonkeyPatch):
    randomness.known_answer_test()
    monkeypatch.setattr(randomness, "AESCounter", lambda key, **_: np.random.PCG64DXSM(key))
    with pytest.raises(RuntimeError, match="known-answer"):
        SecureSource()


def test_streams_are_independent_of_each_other_and_of_global_seeds():
    np.random.seed(0)
    first = SecureSource().stream().standard_normal(1000)
    np.random.seed(0)
    second = SecureSource().stream().standard_normal(1000)
    assert not np.any(first == second)
    source = SecureSource()
    a, b = source.stream().standard_normal(20_000), source.stream().standard_normal(20_000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(20_000)


def test_secure_source_is_never_pickled():
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(SecureSource())


def test_insecure_source_repeats_and_says_so():
    one, two = InsecureSource(7), InsecureSource(7)
    assert np.array_equal(one.stream().random(5), two.stream().random(5))
    assert not np.array_equal(one.stream().random(5), InsecureSource(7).stream().random(5))
    assert not one.secure
    assert "NOT PRIVATE" in one.description
    assert make_source(3).secure is False
    assert make_source().secure is True
