"""From draws to parts of a step: what is loaded, and what is known already."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from torch.utils.data import DataLoader

from discreet.yolo.dataset import Index, Key
from discreet.yolo.feature_cache import FeatureCache
from discreet.yolo.images import TaskImages
from discreet.yolo.microbatch import packed, part_sizes

_View = TypeVar("_View")


class StepParts(Protocol):
    """Gives the parts of one step after the other."""

    def next_step(self) -> Iterator[dict[str, Any]]:
        """The parts of the next step; none for an empty draw."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Step:
    """The parts of a step, of whole units: first what is known, by key, then what is loaded."""

    known: Sequence[Sequence[Sequence[Key]]]
    loaded: Sequence[Sequence[Sequence[Index]]]


class MicroBatches:
    """Loads the drawn images of each step in parts; workers load ahead of the training.

    Images whose features are known already are not loaded: they come in parts of their own, with
    `features` instead of `img`.

    Args:
        dataset: The training images.
        draws: The drawn units of each step to come, in order: an image, or several that are one
            unit. Consumed lazily, maybe ahead.
        first_step: Number of the first of these steps.
        micro_batch_size: Most images of a part, views included; a unit of more is a part of its
            own, since a part never breaks a unit apart.
        workers: Loading processes; 0 loads in this one.
        pin_memory: Whether to load into page-locked memory, for a GPU.
        views: Augmented views of each image. What is one unit stands one behind the other in a
            part, which then has the key `unit_sizes`: see `discreet.yolo.microbatch.units_of`.
        cache: Features that are known. Parts that could add to it have `keys`.
        even: Whether all parts but the last are of the most images, to be filled up.
    """

    def __init__(
        self,
        dataset: TaskImages,
        draws: Iterator[Sequence[int | Sequence[int]]],
        *,
        first_step: int,
        micro_batch_size: int,
        workers: int = 0,
        pin_memory: bool = False,
        views: int = 1,
        cache: FeatureCache | None = None,
        even: bool = False,
    ) -> None:
        self._even = even
        self._dataset, self._cache = dataset, cache
        self._steps: deque[_Step] = deque()
        self._size, self._views = micro_batch_size, views
        loader = DataLoader(
            cast(Any, dataset),
            batch_sampler=cast(Any, self._parts(draws, first_step)),
            collate_fn=partial(collate, dataset.collate_fn),
            num_workers=workers,
            pin_memory=pin_memory,
        )
        self._loaded = iter(loader)

    def _parts(
        self, draws: Iterator[Sequence[int | Sequence[int]]], first_step: int
    ) -> Iterator[Sequence[Index]]:
        for number, draw in enumerate(draws, start=first_step):
            step = self._split(number, draw)
            self._steps.append(step)
            # A step that loads nothing gets an empty part, or the loader would draw the next.
            yield from map(_flat, step.loaded) if step.loaded else [[]]

    def _split(self, step: int, draw: Sequence[int | Sequence[int]]) -> _Step:
        known: list[list[Key]] = []
        unknown: list[list[Index]] = []
        for unit in draw:
            images = unit if isinstance(unit, Sequence) else (unit,)
            views: list[Index] = [
                (step, int(image), view) for image in images for view in range(self._views)
            ]
            keys = self._keys(views)
            if self._cache is not None and keys and all(key in self._cache for key in keys):
                known.append(keys)
            else:
                unknown.append(views)
        return _Step(
            known=_grouped(known, self._size, even=self._even),
            loaded=_grouped(unknown, self._size, even=self._even),
        )

    def _keys(self, indices: Sequence[Index]) -> list[Key]:
        """Keys of these images; none if they are not to be kept."""
        if self._cache is None:
            return []
        keys = [self._dataset.key(index) for index in indices]
        return [key for key in keys if key is not None]

    def next_step(self) -> Iterator[dict[str, Any]]:
        """The parts of the next step; none for an empty draw."""
        part = next(self._loaded)  # lets the sampler draw the step
        step = self._steps.popleft()
        for units in step.known:
            assert self._cache is not None
            yield self._cache.part(_flat(units)) | _together(units)
        for number, units in enumerate(step.loaded):
            part = part if number == 0 else next(self._loaded)
            keys = self._keys(_flat(units))
            yield part | _together(units) | ({"keys": keys} if keys else {})


def _flat(units: Sequence[Sequence[_View]]) -> list[_View]:
    return [view for unit in units for view in unit]


def _together(units: Sequence[Sequence[Any]]) -> dict[str, Any]:
    sizes = [len(unit) for unit in units]
    return {"unit_sizes": sizes} if max(sizes) > 1 else {}


def collate(
    together: Callable[[list[dict[str, Any]]], dict[str, Any]], items: list[dict[str, Any]]
) -> dict[str, Any]:
    """Images with their labels as a part; an empty one is empty.

    Args:
        together: Makes a part of one or more images.
        items: The images.
    """
    return together(items) if items else {}


def _grouped(
    units: Sequence[Sequence[_View]], size: int, *, even: bool
) -> list[list[Sequence[_View]]]:
    """Parts of at most `size` images, or of one unit; of few sizes, where units are alike.

    Each new size costs the engine a proof: whole parts, then halves, quarters and so on down to
    eight units, then the rest. `even` ones are filled up to one size: whole parts, then the rest.
    """
    sizes = {len(unit) for unit in units}
    if len(sizes) != 1:
        return list(packed(units, size))
    parts: list[list[Sequence[_View]]] = []
    start = 0
    most = max(1, size // sizes.pop())
    for whole in [most] if even else part_sizes(most):
        while start + whole <= len(units):
            parts.append(list(units[start : start + whole]))
            start += whole
    return [*parts, list(units[start:])] if start < len(units) else parts
