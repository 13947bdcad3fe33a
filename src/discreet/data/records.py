"""What a data set is once it has been read: images, labels, names. Values only.

Shape legend: k is the number of objects of one image, K of key points of an object.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from discreet.privacy import GroupingName
from discreet.units import PrivacyUnits

TaskName = Literal["detect", "segment", "pose", "obb", "classify"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageRecord:
    """One image with its labels: one privacy unit, unless it has a group.

    Attributes:
        image: Absolute path of the image; symbolic links are kept as they were listed.
        label: Absolute path of its label file, or None where there is none (a background image,
            or a class that follows from the folder).
        width: Pixels, after the rotation that the image's EXIF orientation asks for.
        height: Pixels, after the same rotation.
        classes: Class numbers, int64 (k,), read-only; one, of the whole image, for
            classification.
        boxes: Centre x, centre y, width, height as shares of the image, float32 (k, 4), read-only;
            none, (0, 4), for classification.
        outlines: Corners x, y as shares of the image, one float32 (corners, 2) per object, for
            segmentation and oriented boxes; else none.
        keypoints: x, y as shares of the image and visibility (0 is none), float32 (k, K, 3), for
            poses; else None.
        digest: BLAKE2b of the pixels, 16 bytes. Private: it identifies the image, so it
            must never reach a release.
        look: What it looks like, roughly, to find near duplicates; empty where it is not known.
        group: Key of the unit that it belongs to; None where it is a unit of its own. Private.
    """

    image: Path
    label: Path | None
    width: int
    height: int
    classes: NDArray[np.int64]
    boxes: NDArray[np.float32]
    outlines: tuple[NDArray[np.float32], ...] = ()
    keypoints: NDArray[np.float32] | None = None
    digest: bytes = field(repr=False)
    look: bytes = field(default=b"", repr=False)
    group: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class KeyPoints:
    """What the key points of every object are.

    Attributes:
        count: K.
        columns: Numbers of each in a label: 2, x and y, or 3, with visibility.
        mirrored: The point that takes each one's place in a mirrored image; none if not told.
    """

    count: int
    columns: int
    mirrored: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionDataset:
    """A data set in Ultralytics' format, checked in full.

    Attributes:
        yaml: The data set file; the folder itself for classification.
        names: Class names; the position is the class number.
        train: Training images in Ultralytics' order (sorted by path).
        val: Validation images; empty where the split was not asked for.
        test: Test images; empty where the split was not asked for.
        notices: What a user should know and what does not stop a run. Private: they name files
            and count images.
        task: What the labels are for.
        keypoints: What the key points are, for poses.
        grouping: How images came to groups: by a "file" or by a "pattern"; None where they have
            none.
    """

    yaml: Path
    names: tuple[str, ...]
    train: tuple[ImageRecord, ...]
    val: tuple[ImageRecord, ...] = ()
    test: tuple[ImageRecord, ...] = ()
    notices: tuple[str, ...] = ()
    task: TaskName = "detect"
    keypoints: KeyPoints | None = None
    grouping: GroupingName | None = None

    @property
    def n(self) -> int:
        """Number of training images."""
        return len(self.train)

    def units(self, *, max_images: int = 1) -> PrivacyUnits:
        """The privacy units of the training images; see `PrivacyUnits`."""
        return PrivacyUnits.of(
            (record.group for record in self.train),
            [record.digest for record in self.train],
            max_images=max_images,
        )

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)
