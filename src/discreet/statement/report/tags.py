"""Where the names of found objects stand in a picture, so that they can be read."""

from __future__ import annotations

from dataclasses import dataclass

from discreet.statement.report.validation import Sample

_LETTERS_ACROSS = 24  # height of a letter: this many stand side by side, were they square
_WIDTH_OF_LETTER = 0.6  # of its height, on average
_GAP = 0.25  # of the height of a letter


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A name and a confidence.

    Attributes:
        text: What is written.
        size: Height of a letter, in pixels of the picture.
        left: Where the text begins.
        baseline: What the letters stand on.
    """

    text: str
    size: float
    left: float
    baseline: float

    @property
    def right(self) -> float:
        """About where the text ends."""
        return self.left + len(self.text) * self.size * _WIDTH_OF_LETTER

    def meets(self, other: Tag) -> bool:
        """Whether both would cover the same place."""
        apart = max(self.left, other.left) - min(self.right, other.right)
        return apart < 0 and abs(self.baseline - other.baseline) < self.size


def place_tags(sample: Sample) -> list[Tag]:
    """Tags of the found objects, the most certain first: one without a free place has none.

    A tag stands above its box, else under its upper edge, and never beyond the picture.
    """
    size = sample.width / _LETTERS_ACROSS
    gap = size * _GAP
    placed: list[Tag] = []
    for box in sorted(sample.detections, key=lambda box: -(box.confidence or 0)):
        text = f"{box.name} {box.confidence or 0:.2f}"
        room = sample.width - len(text) * size * _WIDTH_OF_LETTER
        left = max(0.0, min(box.left * sample.width + gap, room))
        top = box.top * sample.height
        for baseline in (top - gap, top + size + gap):
            tag = Tag(text=text, size=size, left=left, baseline=baseline)
            if baseline >= size and not any(tag.meets(other) for other in placed):
                placed.append(tag)
                break
    return placed
