"""From draws to parts of a step: what is loaded, and what is known already."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from torch.utils.data import DataLoader
from ultralytics.data.dataset import YOLODataset

from discreet.yolo.dataset import Index, Key, RecordDataset
from discreet.yolo.feature_cache import FeatureCache

_SMALLEST_HALF = 8
_View = TypeVar("_View")


class StepParts(Protocol):
    """Gives the parts of one step after the other."""

    def next_step(self) -> Iterator[dict[str, Any]]:
        """The parts of the next step; none for an empty draw."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Step:
    """The parts of a step: first what is known, by key, then what is loaded."""

    known: Sequence[Sequence[Key]]
    loaded: Sequence[Sequence[Index]]


class MicroBatches:
    """Loads the drawn images of each step in parts; workers load ahead of the training.

    Images whose features are known already are not loaded: they come in parts of their own, with
    `features` instead of `img`.

    Args:
        dataset: The training images.
        draws: The draw of each step to come, in order; consumed lazily, maybe ahead.
        first_step: Number of the first of these steps.
        micro_batch_size: Most images of a part.
        workers: Loading processes; 0 loads in this one.
        pin_memory: Whether to load into page-locked memory, for a GPU.
        views: Augmented views of each drawn image. They stand one behind the other in a part,
            which then has the key `views`; a part never breaks an image's views apart.
        cache: Features that are known. Parts that could add to it have `keys`.
    """

    def __init__(
        self,
        dataset: RecordDataset,
        draws: Iterator[Sequence[int]],
        *,
        first_step: int,
        micro_batch_size: int,
        workers: int = 0,
        pin_memory: bool = False,
        views: int = 1,
        cache: FeatureCache | None = None,
    ) -> None:
        self._dataset, self._cache = dataset, cache
        self._steps: deque[_Step] = deque()
        self._size = max(1, micro_batch_size // views)  # images, of all their views
        self._views = views
        loader = DataLoader(
            cast(Any, dataset),
            batch_sampler=cast(Any, self._parts(draws, first_step)),
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pin_memory,
        )
        self._loaded = iter(loader)

    def _parts(self, draws: Iterator[Sequence[int]], first_step: int) -> Iterator[Sequence[Index]]:
        for number, draw in enumerate(draws, start=first_step):
            step = self._split(number, draw)
            self._steps.append(step)
            # A step that loads nothing gets an empty part, or the loader would draw the next.
            yield from step.loaded or [[]]

    def _split(self, step: int, draw: Sequence[int]) -> _Step:
        known: list[list[Key]] = []
        unknown: list[list[Index]] = []
        for image in draw:
            views: list[Index] = [(step, int(image), view) for view in range(self._views)]
            keys = self._keys(views)
            if self._cache is not None and keys and all(key in self._cache for key in keys):
                known.append(keys)
            else:
                unknown.append(views)
        return _Step(known=_grouped(known, self._size), loaded=_grouped(unknown, self._size))

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
        together = {} if self._views == 1 else {"views": self._views}
        for keys in step.known:
            assert self._cache is not None
            yield self._cache.part(keys) | together
        for number, indices in enumerate(step.loaded):
            part = part if number == 0 else next(self._loaded)
            keys = self._keys(indices)
            yield part | together | ({"keys": keys} if keys else {})


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Images with their labels as a part; an empty one is empty."""
    return YOLODataset.collate_fn(items) if items else {}


def _grouped(images: Sequence[Sequence[_View]], size: int) -> list[list[_View]]:
    """Parts of at most `size` images, of few sizes: each new one costs the engine a proof.

    Whole ones, then halves, quarters and so on down to eight images, then the rest.
    """
    parts: list[list[_View]] = []
    start = 0
    while start < len(images):
        while start + size > len(images) and size // 2 >= _SMALLEST_HALF:
            size //= 2
        parts.append([view for views in images[start : start + size] for view in views])
        start += size
    return parts
