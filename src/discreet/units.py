"""Privacy units of several images: who belongs together, and which images a step looks at.

A unit is drawn as a whole, by the sampler; of a drawn unit a step reads at most `max_images`
images, and takes the mean of their gradients before it clips. So a unit reaches the model through
one clipped gradient, however many images it has.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Self

from discreet import _validate

if TYPE_CHECKING:
    from discreet.randomness import RandomSource

_SALT_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class PrivacyUnits:
    """The images of every unit.

    Attributes:
        members: Numbers of each unit's images; every image is in one unit.
        digests: Content digest of each image. Private.
        max_images: Most images of a unit that a step reads.
    """

    members: tuple[tuple[int, ...], ...]
    digests: Sequence[bytes]
    max_images: int = 1

    def __post_init__(self) -> None:
        _validate.positive_int(max_images=self.max_images)
        numbers = sorted(image for unit in self.members for image in unit)
        if numbers != list(range(len(self.digests))):
            raise ValueError("every image has to be in one unit, and in one only")

    @classmethod
    def of(
        cls, keys: Iterable[Hashable | None], digests: Sequence[bytes], *, max_images: int = 1
    ) -> Self:
        """Units in the order of their first images.

        Args:
            keys: What the images of a unit have in common, image for image; an image without
                (None) is a unit of its own.
            digests: Content digest of each image.
            max_images: See the class.
        """
        members: dict[tuple[bool, Hashable], list[int]] = {}
        for image, key in enumerate(keys):
            members.setdefault((False, image) if key is None else (True, key), []).append(image)
        together = tuple(tuple(unit) for unit in members.values())
        return cls(members=together, digests=digests, max_images=max_images)

    def __len__(self) -> int:
        """Number of units n: the population of the sampler."""
        return len(self.members)

    @property
    def images_per_unit(self) -> float:
        """Images that a drawn unit costs on average: Σ min(max_images, size) / n. Private."""
        return sum(min(self.max_images, len(unit)) for unit in self.members) / len(self)

    @property
    def of_images(self) -> list[int]:
        """The number of each image's unit."""
        found = dict[int, int]()
        for number, unit in enumerate(self.members):
            found |= dict.fromkeys(unit, number)
        return [found[image] for image in range(len(self.digests))]

    @property
    def has_groups(self) -> bool:
        """Whether any unit has more than one image."""
        return len(self.members) < len(self.digests)

    def chosen(
        self, draws: Iterable[Sequence[int]], source: RandomSource
    ) -> Iterator[list[tuple[int, ...]]]:
        """The images of each drawn unit, step for step.

        Args:
            draws: Numbers of the drawn units of each step.
            source: As secret as the draws; each step has a salt of its own from it.
        """
        for draw in draws:
            salt = source.stream().bytes(_SALT_BYTES) if self.has_groups else b""
            yield [self.choose(int(unit), salt) for unit in draw]

    def choose(self, unit: int, salt: bytes) -> tuple[int, ...]:
        """At most `max_images` of a unit's images, in the order of their numbers.

        Those with the smallest keyed hashes of their content (BLAKE2b, keyed by the salt): a
        uniformly random subset to whoever does not know the salt, that depends on no other unit
        nor on any order. One stream for all units would let each unit move what the others after
        it draw.

        Args:
            unit: Number of the unit.
            salt: Fresh random bytes of the step.
        """
        images = self.members[unit]
        if len(images) <= self.max_images:
            return images
        ranks = {i: blake2b(self.digests[i], key=salt, digest_size=16).digest() for i in images}
        return tuple(sorted(sorted(images, key=ranks.__getitem__)[: self.max_images]))
