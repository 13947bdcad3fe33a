"""List the images of a split, as Ultralytics 8.4 does (data/base.py, get_img_files).

Differences: what Ultralytics leaves out in silence (entries without a known suffix, unreadable
folders, broken links) is reported.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from discreet.data._findings import EXAMPLES_SHOWN, Findings, examples
from discreet.data._nearest import hint
from discreet.data._reading import UnreadableError, exists, is_folder, names_in, read_text
from discreet.data.description import NO_NETWORK, is_remote
from discreet.data.images import ULTRALYTICS_SUFFIXES, suffix_of
from discreet.data.labels import label_path
from discreet.terminal import count


@dataclass(frozen=True, kw_only=True)
class ListedImage:
    """An image and where it was listed.

    Attributes:
        split: train, val or test.
        image: Absolute path; links below the split's folder are kept.
        listed_in: The list file that names it; None if it was found in a folder.
        line: Its line there.
        number: Its class, where that follows from its folder.
    """

    split: str
    image: Path
    listed_in: Path | None = None
    line: int | None = None
    number: int | None = None


def list_images(split: str, sources: Sequence[Path], findings: Findings) -> tuple[ListedImage, ...]:
    """All images of a split, sorted by path; whatever is wrong goes to `findings`.

    Args:
        split: train, val or test.
        sources: Folders, searched at any depth, and list files (one path a line).
        findings: Takes problems and notices.
    """
    listed: list[ListedImage] = []
    before = len(findings.problems)
    for source in sources:
        list_source = _list_folder if is_folder(source) else _list_file
        listed.extend(list_source(split, source, findings))
    if sources and not listed and len(findings.problems) == before:
        looked = ", ".join(str(source) for source in sources)
        suffixes = ", ".join(sorted(ULTRALYTICS_SUFFIXES))
        what = f"{split} is empty: no images in {looked} (suffixes: {suffixes})"
        findings.problem(findings.yaml, what)
    return tuple(sorted(listed, key=lambda item: str(item.image)))


def list_classes(
    split: str, folder: Path, names: Sequence[str], findings: Findings
) -> tuple[ListedImage, ...]:
    """All images of a split whose folders are classes, sorted by path.

    Args:
        split: train, val or test.
        folder: Its folder.
        names: Names of the classes, which are those of folders.
        findings: Takes problems and notices.
    """
    listed: list[ListedImage] = []
    for entry in names_in(folder):
        inside = folder / entry
        if entry.startswith(".") or not is_folder(inside):
            findings.notice(f"{split}: {findings.shown(inside)} is in no class's folder, left out")
        elif entry not in names:
            findings.problem(inside, "a class that is not in train")
        else:
            number = names.index(entry)
            found = _list_folder(split, inside, findings)
            listed += [replace(image, number=number) for image in found]
    if not listed:
        findings.problem(folder, f"{split} is empty: no images in folders of classes")
    return tuple(sorted(listed, key=lambda item: str(item.image)))


def _list_folder(split: str, folder: Path, findings: Findings) -> list[ListedImage]:
    images: list[Path] = []
    left_out: list[Path] = []
    visited: dict[tuple[int, int], Path] = {}

    def unreadable(error: OSError) -> None:
        what = f"folder cannot be read: {error.strerror or error}"
        findings.problem(Path(error.filename or folder), what)

    # Links to folders are followed, as glob's ** does; hidden names are left out, as it does.
    for name, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        here = Path(name)
        status = here.stat()
        if (first := visited.setdefault((status.st_dev, status.st_ino), here)) != here:
            what = f"the same folder as {findings.shown(first)}: its images would count twice"
            findings.problem(here, what)
            folders.clear()
            continue
        left_out += [here / entry for entry in folders if entry.startswith(".")]
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        for entry in folders:
            if "." in entry and suffix_of(entry) in ULTRALYTICS_SUFFIXES:
                findings.problem(here / entry, "a folder with the name of an image")
        for entry in files:
            named_as_image = "." in entry and suffix_of(entry) in ULTRALYTICS_SUFFIXES
            chosen = images if named_as_image and not entry.startswith(".") else left_out
            chosen.append(here / entry)

    labels = {label_path(image) for image in images}
    if others := sorted(findings.shown(path) for path in left_out if path not in labels):
        findings.notice(
            f"{split}: {count(len(others), 'file')} in {findings.shown(folder)} left out, hidden or"
            f" without an image suffix: {examples(others)}"
        )
    return [ListedImage(split=split, image=image) for image in images]


def _list_file(split: str, file: Path, findings: Findings) -> list[ListedImage]:
    if suffix_of(file) in ULTRALYTICS_SUFFIXES:
        findings.problem(file, f"{split} must be a folder or a list of images, this is an image")
        return []
    try:
        text = read_text(file)
    except UnreadableError as error:
        findings.problem(file, str(error), line=error.line)
        return []
    hints = EXAMPLES_SHOWN  # comparing names is slow: not for thousands of missing images
    listed: list[ListedImage] = []
    for line, entry in enumerate(text.splitlines(), start=1):
        if not entry.strip():
            continue
        image = Path(entry)
        if entry.startswith("./"):
            image = file.parent / entry[2:]
        if is_remote(entry):
            findings.problem(file, f"{entry} {NO_NETWORK}", line=line)
        elif not image.is_absolute():
            what = f"{entry} is relative to the current folder: begin it with ./ for this folder"
            findings.problem(file, what, line=line)
        elif "." not in image.name or suffix_of(entry) not in ULTRALYTICS_SUFFIXES:
            findings.problem(file, f"{entry!r} has no image suffix", line=line)
        elif not exists(image):
            near = hint(image) if hints > 0 else ""
            hints -= 1
            what = f"no such image: looked for {image}{near}"
            findings.problem(file, what, line=line)
        else:
            listed.append(ListedImage(split=split, image=image, listed_in=file, line=line))
    return listed
