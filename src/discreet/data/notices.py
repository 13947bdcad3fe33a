"""Say what was done with odd labels and images, in one line for each kind.

Notices name files and count images: they are for the user's terminal and the internal log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from discreet.data._findings import Findings, examples
from discreet.data._nearest import hint
from discreet.data._reading import names_in
from discreet.data.checking import CheckedImage
from discreet.data.images import ULTRALYTICS_SUFFIXES, suffix_of
from discreet.terminal import count


def report_labels(
    checked: Sequence[CheckedImage], findings: Findings, *, wanted: bool = True
) -> None:
    """Report missing, odd and unused labels, and images with several frames.

    Args:
        checked: All images.
        findings: Takes the notices; and a problem where no training image has a label file.
        wanted: Whether training images need labels at all.
    """
    by_split: defaultdict[str, list[CheckedImage]] = defaultdict(list)
    for item in checked:
        by_split[item.listed.split].append(item)
    for split, items in by_split.items():
        if wanted or split != "train":
            _report_background(split, items, findings)
    _report_odd_labels(checked, findings)
    _report_shared_labels(checked, findings)
    _report_unused_labels(checked, findings)
    frames = [
        findings.shown(item.listed.image)
        for item in checked
        if item.facts and item.facts.frames > 1
    ]
    if frames:
        number = count(len(frames), "image")
        findings.notice(
            f"{number} with several frames, of which the first is used: {examples(frames)}"
        )


def _report_background(split: str, items: Sequence[CheckedImage], findings: Findings) -> None:
    missing = [item for item in items if item.labels is None]
    if len(missing) == len(items):
        looked = missing[0].label
        what = (
            f"{split}: no image has a label file; looked for {findings.shown(looked)}{hint(looked)}"
        )
        if split == "train":
            findings.problem(findings.yaml, what)
        else:
            findings.notice(what)
    elif missing:
        names = examples([findings.shown(item.listed.image) for item in missing])
        findings.notice(
            f"{split}: {len(missing)} of {count(len(items), 'image')} without a label file, taken"
            f" as background: {names}"
        )
    elif not any(len(item.labels.boxes) for item in items if item.labels is not None):
        findings.notice(f"{split}: the label files hold no box at all")


def _report_odd_labels(checked: Sequence[CheckedImage], findings: Findings) -> None:
    repeated: list[str] = []
    flat: list[str] = []
    polygons: list[str] = []
    keypoints: list[str] = []
    for item in checked:
        if item.labels is None:
            continue
        repeated += [findings.shown(item.label, line) for line in item.labels.repeated]
        flat += [findings.shown(item.label, line) for line in item.labels.flat]
        polygons += [findings.shown(item.label)] * item.labels.polygons
        keypoints += [findings.shown(item.label)] * item.labels.cut_keypoints
    for found, noun, done in (
        (repeated, "label line", "left out, each repeating an earlier one"),
        (flat, "label line", "with a box of no width or no height"),
        (polygons, "label file", "with polygons, of which the bounding boxes are used"),
        (keypoints, "label file", "with key points, which are cut off"),
    ):
        if found:
            findings.notice(f"{count(len(found), noun)} {done}: {examples(found)}")


def _report_shared_labels(checked: Sequence[CheckedImage], findings: Findings) -> None:
    images: defaultdict[Path, set[Path]] = defaultdict(set)
    for item in checked:
        if item.labels is not None:
            images[item.label].add(item.listed.image)
    shared = [findings.shown(label) for label, users in images.items() if len(users) > 1]
    if shared:
        findings.notice(
            f"{count(len(shared), 'label file')} used by several images that differ only in their"
            f" suffix: {examples(shared)}"
        )


def _report_unused_labels(checked: Sequence[CheckedImage], findings: Findings) -> None:
    used = {item.label for item in checked}
    # A list may name part of a folder: labels of images that are there but not listed are no news.
    unused: list[str] = []
    for labels, images in {item.label.parent: item.listed.image.parent for item in checked}.items():
        stems = {
            name.rpartition(".")[0]
            for name in names_in(images)
            if suffix_of(name) in ULTRALYTICS_SUFFIXES
        }
        unused += [
            findings.shown(labels / name)
            for name in names_in(labels)
            if suffix_of(name) == "txt"
            and labels / name not in used
            and name.rpartition(".")[0] not in stems
        ]
    if unused:
        findings.notice(
            f"{count(len(unused), 'label file')} without an image, left out: {examples(unused)}"
        )
