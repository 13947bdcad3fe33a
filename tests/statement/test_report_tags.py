"""Names in a picture can be read: none covers another, none leaves the picture."""

from __future__ import annotations

from dataclasses import replace

from discreet.statement.report import Box, Sample
from discreet.statement.report.tags import place_tags


def sample(*boxes: tuple[float, float, float]) -> Sample:
    """A picture of objects found at (left, top) with a confidence."""
    found = tuple(
        Box(name="cell", left=x, top=y, width=0.2, height=0.2, confidence=c) for x, y, c in boxes
    )
    return Sample(jpeg=b"", width=240, height=160, labels=(), detections=found)


def test_a_name_stands_above_its_object():
    (tag,) = place_tags(sample((0.5, 0.5, 0.9)))
    assert tag.text == "cell 0.90"
    assert tag.left >= 120
    assert 70 < tag.baseline < 80


def test_at_the_edges_a_name_moves_into_the_picture():
    (tag,) = place_tags(sample((0.97, 0.0, 0.9)))
    assert tag.right <= 240
    assert tag.baseline >= tag.size


def test_in_a_crowd_the_most_certain_are_named():
    crowd = sample(*((0.4, 0.4, c / 10) for c in range(3, 10)))
    tags = place_tags(crowd)
    assert [tag.text for tag in tags] == ["cell 0.90", "cell 0.80"]
    assert not tags[0].meets(tags[1])


def test_a_name_longer_than_the_picture_begins_at_its_edge():
    boxes = sample((0.5, 0.5, 0.9))
    long = replace(boxes.detections[0], name="n" * 99)
    assert place_tags(replace(boxes, detections=(long,)))[0].left == 0
