"""Find images that would count more than once, or that are in training and validation both.

A unit listed twice has twice its clipped contribution: the guarantee would be that of a group of
two. A private image in a public validation set leaves the run through the metrics.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from discreet.data._findings import Findings, examples
from discreet.data.checking import CheckedImage


def report_repeats(images: Sequence[CheckedImage], findings: Findings) -> None:
    """Report every image that is there twice, by file or by content, naming both places.

    Args:
        images: All images, training split first.
        findings: Takes the problems; the same content twice outside training is a notice, since
            it moves a metric but not the guarantee.
    """
    harmless: list[str] = []
    firsts: list[CheckedImage] = []
    present = [image for image in images if image.file is not None]
    for first, *others in _groups(present, [image.file for image in present]):
        firsts.append(first)
        for other in others:
            _report(first, other, "the same file as", findings, harmless, same_file=True)
    # An empty file equals every other empty file, and is reported as empty already.
    readable = [(image, image.facts.digest) for image in firsts if image.facts is not None]
    for first, *others in _groups([i for i, _ in readable], [digest for _, digest in readable]):
        for other in others:
            _report(first, other, "the same pixels as", findings, harmless)
    if harmless:
        findings.notice(f"images that are there twice, outside train: {examples(harmless)}")


def _groups(
    entries: Sequence[CheckedImage], keys: Sequence[Hashable]
) -> Iterable[list[CheckedImage]]:
    groups: defaultdict[Hashable, list[CheckedImage]] = defaultdict(list)
    for entry, key in zip(entries, keys, strict=True):
        groups[key].append(entry)
    return groups.values()


def _report(
    first: CheckedImage,
    other: CheckedImage,
    relation: str,
    findings: Findings,
    harmless: list[str],
    *,
    same_file: bool = False,
) -> None:
    one, two = first.listed, other.listed
    same_split = one.split == two.split
    twin = findings.shown(one.image)
    if one.listed_in is not None:
        twin += f" ({findings.shown(one.listed_in, one.line)})"
    if "train" not in (one.split, two.split) and not (same_split and same_file):
        harmless.append(f"{findings.shown(two.image)} = {twin}")
        return
    if same_split:
        what = f"{relation} {twin}: one image would count twice in {two.split}"
    else:
        what = f"in {two.split}, and {relation} {twin} in {one.split}: the splits overlap"
    if two.listed_in is None:
        findings.problem(two.image, what)
    else:
        findings.problem(two.listed_in, f"{findings.shown(two.image)} is {what}", line=two.line)
