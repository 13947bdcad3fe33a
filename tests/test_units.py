"""Privacy units: whole, and read without regard to anything else."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from discreet.config import MechanismConfig
from discreet.privacy import PrivacyUnit
from discreet.randomness import InsecureSource, SecureSource
from discreet.units import PrivacyUnits


def digests(*names: object) -> list[bytes]:
    return [hashlib.blake2b(str(name).encode(), digest_size=16).digest() for name in names]


def units_of(keys: str, *, most: int = 2) -> PrivacyUnits:
    """One image a letter; images are known by letter and place in their unit."""
    seen: Counter[str] = Counter()
    names = []
    for key in keys:
        names.append(f"{key}{seen[key]}")
        seen[key] += 1
    return PrivacyUnits.of(keys, digests(*names), max_images=most)


def test_units_are_the_images_of_a_key_in_the_order_of_their_first():
    units = PrivacyUnits.of(["b", None, "a", "b", None], digests(*range(5)), max_images=2)
    assert units.members == ((0, 3), (1,), (2,), (4,))
    assert len(units) == 4 and units.has_groups
    assert units.images_per_unit == 5 / 4
    assert units.of_images == [0, 1, 2, 0, 3]


def test_images_count_at_most_as_often_as_they_are_read():
    assert units_of("aaaaab", most=3).images_per_unit == (3 + 1) / 2


def test_every_image_is_in_one_unit():
    for members in ((0, 1), (1, 2)), ((0, 1),), ((0, 1, 2), (3,)):
        with pytest.raises(ValueError, match="one unit"):
            PrivacyUnits(members=members, digests=digests(1, 2, 3))  # pyright: ignore


@pytest.mark.parametrize("removed", ["a", "b", "c"])
def test_the_choice_in_a_unit_depends_on_no_other_unit_and_no_order(removed: str):
    whole = units_of("aaaabbbbbcccd")
    rest = units_of("aaaabbbbbcccd".replace(removed, ""))
    turned = units_of("dcccbbbbbaaaa")

    def chosen(units: PrivacyUnits, salt: bytes) -> dict[frozenset[bytes], frozenset[bytes]]:
        return {
            frozenset(units.digests[i] for i in images): frozenset(
                units.digests[i] for i in units.choose(number, salt)
            )
            for number, images in enumerate(units.members)
        }

    for step in range(20):
        salt = bytes([step]) * 32
        before = chosen(whole, salt)
        after = chosen(rest, salt)
        assert after == {unit: before[unit] for unit in after}
        assert chosen(turned, salt) == before


def test_the_choice_is_uniform_and_new_in_every_step():
    units = units_of("aaaaa" + "b", most=2)
    steps = 4000
    counts: Counter[tuple[int, ...]] = Counter()
    for (images,) in units.chosen([[0]] * steps, InsecureSource(0)):
        counts[images] += 1
    assert len(counts) == 10
    expected = steps / 10
    chi = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi < 35  # 9 degrees of freedom: 6e-5


def test_the_choice_cannot_be_foreseen():
    units = units_of("aaaaaaaaaa", most=5)
    runs = [tuple(units.chosen([[0]] * 8, SecureSource())) for _ in range(2)]
    assert runs[0] != runs[1]


def test_images_without_groups_take_no_randomness():
    class Nothing:
        def stream(self) -> np.random.Generator:
            raise AssertionError("nothing is to be chosen")

    units = PrivacyUnits.of([None] * 3, digests(1, 2, 3))
    assert list(units.chosen([[0, 2], []], Nothing())) == [[(0,), (2,)], []]  # pyright: ignore


def test_a_mechanism_of_groups_says_how_many_images_it_reads():
    settings = {
        "population": 10, "expected_batch_size": 2, "steps": 1, "noise_multiplier": 1.0,
        "max_grad_norm": 1.0, "delta": 1e-3,
    }  # fmt: skip
    assert MechanismConfig(**settings, unit=PrivacyUnit.GROUP, max_images_per_unit=4)
    for wrong in {"unit": PrivacyUnit.GROUP}, {"max_images_per_unit": 4}:
        with pytest.raises(ValueError, match="max_images_per_unit"):
            MechanismConfig(**settings, **wrong)
