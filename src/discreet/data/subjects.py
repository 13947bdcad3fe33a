"""Signs that several images show one subject: names that begin alike, pictures that look alike.

Where an image is the unit, a person with ten images is protected for each of them, and for all
ten far less. Nobody can tell persons from files, so this only asks. What it finds is for the
user's terminal: it names files and counts images.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from discreet.data._findings import examples, printable
from discreet.data.looks import known_looks, near_pairs, records_like
from discreet.data.records import DetectionDataset, ImageRecord
from discreet.terminal import count

_FEWEST_BEGINNINGS = 3
_SHARE_OF_NAMES, _SHARE_OF_LOOKS = 0.2, 0.01
_LAST_PART = re.compile(r"[-_. ]*(?:[-_. ][^-_. ]*|\d+)$")

_DO = (
    "If they show one patient, person or place, make them one unit with groups=FILE.csv or "
    "group_regex=; docs/howto/patients.md tells how. Otherwise ε holds for each image, and for "
    "somebody with k of them it is that of k units"
)


def suspected_subjects(dataset: DetectionDataset) -> list[str]:
    """Signs that training images belong together, as warnings; none where groups are given."""
    if dataset.grouping is not None or len(dataset.train) < 2:
        return []
    return [*_names(dataset.train), *_looks(dataset.train)]


def suspected_copies(dataset: DetectionDataset) -> Iterator[str]:
    """Signs that public validation images are private ones, saved again, as warnings."""
    if alike := records_like(dataset.val, dataset.train):
        yield printable(
            f"{len(alike)} of {count(len(dataset.val), 'validation image')} look like training "
            f"images: {examples([record.image.name for record in alike])}. They are public by "
            "your word: the report may show them, and its metrics are of them too. If they are "
            "training images, saved again, take them out of val, or leave val_data=private"
        )


def _names(records: Sequence[ImageRecord]) -> Iterator[str]:
    """Names such as p012_001.png and p012_002.png, or a folder for each subject."""
    shared: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for record in records:
        beginning = _LAST_PART.sub("", record.image.stem)
        shared[str(record.image.parent), beginning].append(record.image.name)
    several = {key: names for key, names in shared.items() if len(names) > 1}
    among = sum(map(len, several.values()))
    # One beginning for all, such as IMG_0001, says nothing.
    if len(several) < _FEWEST_BEGINNINGS or among < _SHARE_OF_NAMES * len(records):
        return
    (folder, beginning), names = max(several.items(), key=lambda item: len(item[1]))
    what = f"begin with {beginning!r}" if beginning else f"are in {folder}"
    yield printable(
        f"{among} of {count(len(records), 'image')} share the beginning of their names or their "
        f"folder with others, {len(several)} such beginnings: {len(names)} {what} "
        f"({examples(sorted(names))}). {_DO}"
    )


def _looks(records: Sequence[ImageRecord]) -> Iterator[str]:
    known, looks = known_looks(records)
    pairs = near_pairs(looks)
    alike = len(np.unique(pairs))
    if alike < max(2, _SHARE_OF_LOOKS * len(records)):
        return
    often, _ = Counter(pairs[:, 0].tolist()).most_common(1)[0]
    first = next(pair for pair in pairs.tolist() if pair[0] == often)
    one, other = (known[place].image.name for place in first)
    yield printable(
        f"{alike} of {count(len(records), 'image')} look like another, such as {one} and {other}. "
        f"{_DO}"
    )
