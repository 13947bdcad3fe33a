"""Augmentation that only flips: an image has two states, or four, and no more.

Then whatever depends on the image alone can be kept for each of them; see `feature_cache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ultralytics.data.augment import (
    Compose,
    Format,
    LetterBox,
    RandomFlip,
    RandomHSV,
    RandomPerspective,
)

_WARPS = ("degrees", "translate", "scale", "shear", "perspective")
_GAINS = ("hgain", "sgain", "vgain")


class Flips:
    """Which flips an image gets, drawn beforehand; the transforms of each state.

    Args:
        transforms: All transforms of one image, in order.

    Attributes:
        count: Number of states that can be drawn.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self._chances = [t.p for t in transforms if type(t) is RandomFlip]
        self.count = 1 << sum(0 < p < 1 for p in self._chances)
        self._transforms = [_flipped(transforms, i) for i in range(1 << len(self._chances))]

    @classmethod
    def of(cls, transforms: Sequence[Any]) -> Flips | None:
        """The flips among these transforms; None if anything else about them is random."""
        return cls(transforms) if all(map(_is_flip_or_fixed, transforms)) else None

    def draw(self, entropy: Sequence[int]) -> int:
        """A state, one bit for each flip, from a stream of its own that `entropy` seeds."""
        words = np.random.SeedSequence(entropy).generate_state(len(self._chances), np.uint64)
        flipped = (int(w) / 2**64 < p for w, p in zip(words, self._chances, strict=True))
        return sum(1 << bit for bit, flip in enumerate(flipped) if flip)

    def transforms(self, state: int) -> Compose:
        """The transforms of an image in this state: nothing in them is random."""
        return self._transforms[state]


def _is_flip_or_fixed(transform: Any) -> bool:
    kind = type(transform)  # a subclass may do more
    if kind is RandomPerspective:
        return not any(getattr(transform, name) for name in _WARPS)
    if kind is RandomHSV:
        return not any(getattr(transform, name) for name in _GAINS)
    if kind is Format:
        return not transform.bgr
    return kind in (RandomFlip, LetterBox)


def _flipped(transforms: Sequence[Any], state: int) -> Compose:
    fixed: list[Any] = []
    for transform in transforms:
        if type(transform) is RandomFlip:
            flip = RandomFlip(float(state & 1), transform.direction, transform.flip_idx)
            fixed.append(flip)
            state >>= 1
        else:
            fixed.append(transform)
    return Compose(fixed)
