"""Public images that private ones are mixed with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from discreet.data._findings import examples, printable
from discreet.data.looks import records_like
from discreet.data.records import DetectionDataset, ImageRecord
from discreet.errors import ConfigurationError, UnsafeArgumentError
from discreet.terminal import count


def partners_for(dataset: DetectionDataset, public: DetectionDataset) -> DetectionDataset:
    """The public training images, with the classes of the private data set.

    Classes are the same where their names are. Objects of other classes are left out, as they are
    background to the private data set.

    Args:
        dataset: The private data set.
        public: The public one, as it was loaded; of the same task.

    Returns:
        A data set with the private one's names, and notices of what was left out.

    Raises:
        UnsafeArgumentError: An image is in both, or saved again in another format or size: it
            would reach several clipped gradients.
        ConfigurationError: Objects are described in another way, or no class is in both.
    """
    where = f"public_data={printable(str(public.yaml))}"
    private = {record.digest for record in (*dataset.train, *dataset.val, *dataset.test)}
    if common := sum(record.digest in private for record in public.train):
        raise UnsafeArgumentError(
            f"{count(common, 'image')} of it are private ones, and would reach several clipped "
            "gradients",
            where=where,
            do="take them out of the public data set",
        )
    alike = records_like(public.train, (*dataset.train, *dataset.val, *dataset.test))
    if alike:
        raise UnsafeArgumentError(
            f"{count(len(alike), 'image')} of it look like private ones, such as "
            f"{examples([record.image.name for record in alike])}: copies would reach several "
            "clipped gradients",
            where=where,
            do="take them out of the public data set",
        )
    if public.keypoints != dataset.keypoints:
        raise ConfigurationError(
            "its key points are not those of the private data set",
            where=where,
            do="give both the same kpt_shape and flip_idx, or leave public_data out",
        )
    number_of = {name: number for number, name in enumerate(dataset.names)}
    known = [number_of.get(name, -1) for name in public.names]
    if max(known) < 0:
        raise ConfigurationError(
            f"it has no class of the private data set, but {examples(public.names)}",
            where=where,
            do="name its classes as the private data set does, or leave public_data out",
        )
    records = tuple(_with_classes(record, known) for record in public.train)
    left_out = sum(len(record.classes) for record in public.train) - sum(
        len(record.classes) for record in records
    )
    notices = [f"{count(left_out, 'object')} of other classes in public_data are left out"]
    return replace(
        public, names=dataset.names, train=records, notices=tuple(notices if left_out else ())
    )


def _with_classes(record: ImageRecord, number: Sequence[int]) -> ImageRecord:
    """The image with other numbers of its classes; objects whose number is below 0 are left out."""
    classes = np.array(number, dtype=np.int64)[record.classes]
    kept = classes >= 0
    classes, boxes = classes[kept], record.boxes[kept]
    for values in (classes, boxes):
        values.setflags(write=False)
    outlines = record.outlines
    if outlines:
        outlines = tuple(o for o, stays in zip(outlines, kept, strict=True) if stays)
    points = record.keypoints
    return replace(
        record,
        classes=classes,
        boxes=boxes,
        outlines=outlines,
        keypoints=None if points is None else points[kept],
    )
