"""Check one image together with its labels. Pure reading: runs in a pool of threads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from discreet.data.images import ImageFacts, UnusableImageError, inspect_image
from discreet.data.labels import (
    LabelProblem,
    Labels,
    class_label,
    label_path,
    no_labels,
    read_labels,
)
from discreet.data.listing import ListedImage
from discreet.data.records import ImageRecord, KeyPoints, TaskName


@dataclass(frozen=True, kw_only=True)
class CheckedImage:
    """One image and its labels, as they were found.

    Attributes:
        listed: The image and where it was listed.
        file: Device and inode, links followed: equal for all links to one file; None if it is
            missing.
        facts: What the image holds; None if it cannot be used.
        image_problem: Why not.
        label: Where the label file is, or would be.
        labels: Its boxes; None if there is no such file.
        label_problems: What is wrong in it.
        points: Key points that its labels would have.
    """

    listed: ListedImage
    file: tuple[int, int] | None
    facts: ImageFacts | None
    image_problem: str | None
    label: Path
    labels: Labels | None
    label_problems: tuple[LabelProblem, ...]
    points: KeyPoints | None = None

    def record(self) -> ImageRecord:
        """The image as the data set holds it; only for an image without problems."""
        if self.facts is None or self.label_problems:
            raise AssertionError("an image with problems has no record")
        labels = self.labels or no_labels(self.points)
        return ImageRecord(
            image=self.listed.image,
            label=None if self.labels is None or self.listed.number is not None else self.label,
            width=self.facts.width,
            height=self.facts.height,
            classes=labels.classes,
            boxes=labels.boxes,
            outlines=labels.outlines,
            keypoints=labels.keypoints,
            digest=self.facts.digest,
            look=self.facts.look,
        )


def check_image(
    listed: ListedImage,
    *,
    nc: int | None,
    single_cls: bool,
    task: TaskName = "detect",
    points: KeyPoints | None = None,
) -> CheckedImage:
    """Decode one image and parse its labels; arguments as for `parse_labels`."""
    file = facts = image_problem = None
    try:
        facts = inspect_image(listed.image)
    except UnusableImageError as error:
        image_problem = str(error)
    try:
        status = listed.image.stat()
        file = (status.st_dev, status.st_ino)
    except OSError:
        pass  # reported above: what cannot be examined cannot be read
    label = label_path(listed.image)
    if listed.number is not None:
        labels, problems = class_label(listed.number), []
    elif task == "pose" and points is None:  # refused already: every line would seem wrong
        labels, problems = no_labels(), []
    else:
        labels, problems = read_labels(
            label, nc=nc, single_cls=single_cls, task=task, points=points
        )
    return CheckedImage(
        listed=listed,
        file=file,
        facts=facts,
        image_problem=image_problem,
        label=label,
        labels=labels,
        label_problems=tuple(problems),
        points=points if task == "pose" else None,
    )
