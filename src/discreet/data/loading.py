"""Read and check a whole data set: all images, all label lines, all problems; writes nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import ImageFile

from discreet.data._findings import Findings
from discreet.data._mapping import read_mapping
from discreet.data._reading import is_folder, resolved
from discreet.data.checking import CheckedImage, check_image
from discreet.data.classes import find_folder, is_of_classes, read_classes
from discreet.data.description import Description, find_file, read_description
from discreet.data.listing import ListedImage, list_classes, list_images
from discreet.data.notices import report_labels
from discreet.data.records import DetectionDataset, TaskName
from discreet.data.repeats import report_repeats
from discreet.errors import ConfigurationError, DatasetError

SPLITS = ("train", "val", "test")
CHUNK = 32  # images per task of the thread pool

Progress = Callable[[int, int], None]


def load_dataset(
    data: str | Path,
    *,
    progress: Progress | None = None,
    single_cls: bool = False,
    splits: Sequence[str] = ("train", "val"),
    labels_wanted: bool = True,
    task: TaskName | None = None,
) -> DetectionDataset:
    """Read a data set in Ultralytics' format and check all of it, read-only.

    The images are those that Ultralytics 8.4 would train on, in its order, or none: whatever
    Ultralytics would drop, repair or download is a problem here, because the number of units is
    part of the guarantee. For detection, polygons become boxes; repeated label
    lines are left out; both as Ultralytics does, with a notice.

    Args:
        data: The data set's YAML file, or a folder that holds just one; for classification the
            folder that holds train and val, of a folder a class.
        progress: Called with (images done, images in all) from the calling thread.
        single_cls: Treat all classes as one, as Ultralytics' argument of that name does.
        splits: Which of train, val and test to read; each must be there and not empty.
        labels_wanted: Whether the training images need labels.
        task: What the labels are for; if not given, classes for a folder of class folders, and
            boxes else.

    Returns:
        The data set, with notices about what does not stop a run.

    Raises:
        DatasetError: With all problems found, `file:line: what is wrong`.
        ConfigurationError: A split has an unknown name.
    """
    if unknown := [split for split in splits if split not in SPLITS]:
        what = f"expected splits among {', '.join(SPLITS)}, got {unknown[0]!r}"
        raise ConfigurationError(what, where="splits")
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ConfigurationError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set, so truncated images would pass",
            do="Leave it at False while a private data set is read.",
        )
    if task is None:
        task = "classify" if is_of_classes(Path(data)) else "detect"
    wanted = [split for split in SPLITS if split in splits]
    file = find_folder(data) if task == "classify" else find_file(data)
    root = file if task == "classify" else file.parent
    findings = Findings(yaml=file, root=resolved(root))
    if task == "classify":
        description = read_classes(file, findings, splits=wanted)
    else:
        description = read_description(
            file, findings, splits=wanted, single_cls=single_cls, task=task
        )
    listed = [
        image
        for split, sources in description.sources.items()
        for image in (
            list_classes(split, sources[0], description.names or (), findings)
            if task == "classify"
            else list_images(split, sources, findings)
        )
    ]
    checked = _check_all(listed, description, single_cls, task, progress)
    for item in checked:
        if item.image_problem is not None:
            findings.problem(item.listed.image, item.image_problem)
        for problem in item.label_problems:
            findings.problem(item.label, problem.what, line=problem.line)
    report_repeats(checked, findings)
    if task != "classify":
        report_labels(checked, findings, wanted=labels_wanted)
    findings.refuse()
    records = {
        split: tuple(item.record() for item in checked if item.listed.split == split)
        for split in SPLITS
    }
    return DetectionDataset(
        yaml=file,
        names=description.names or (),
        train=records["train"],
        val=records["val"],
        test=records["test"],
        notices=tuple(findings.notices),
        task=task,
        keypoints=description.points if task == "pose" else None,
    )


def training_files(data: str | Path, *, bases: Sequence[Path] = ()) -> frozenset[Path]:
    """The training images that a data set names, links resolved; none of them is opened.

    Args:
        data: A data set file, a folder that holds just one, or a folder of class folders.
        bases: Folders that a relative `path` in the file may begin in, beside the file's own.

    Raises:
        DatasetError: There is no data set.
    """
    of_classes = _training_files_of_classes(Path(data).absolute())
    try:
        file = find_file(data)
    except DatasetError:
        if of_classes:
            return of_classes
        raise
    mapping = read_mapping(file, Findings(yaml=file, root=file.parent))
    # Without a path everything is beside the file, for Ultralytics as well.
    roots = [file.parent, *(bases if mapping and mapping.values.get("path") else ())]
    sources: set[Path] = set()
    for root in roots:
        findings = Findings(yaml=file, root=resolved(root))
        description = read_description(file, findings, splits=["train"], single_cls=False)
        sources |= {resolved(source) for source in description.sources.get("train", ())}
    listed = list_images("train", sorted(sources), Findings(yaml=file, root=resolved(file.parent)))
    return of_classes | frozenset(resolved(image.image) for image in listed)


def _training_files_of_classes(folder: Path) -> frozenset[Path]:
    """Those of a folder of class folders, whatever else lies in it; none where it is no folder."""
    if not is_folder(folder / "train"):
        return frozenset()
    findings = Findings(yaml=folder, root=resolved(folder))
    names = read_classes(folder, findings, splits=["train"]).names or ()
    listed = list_classes("train", resolved(folder / "train"), names, findings)
    return frozenset(resolved(image.image) for image in listed)


def _check_all(
    listed: Sequence[ListedImage],
    description: Description,
    single_cls: bool,
    task: TaskName,
    progress: Progress | None,
) -> list[CheckedImage]:
    nc = None if description.names is None else len(description.names)

    def check_chunk(start: int) -> list[CheckedImage]:
        return [
            check_image(
                item,
                nc=nc,
                single_cls=single_cls,
                task=task,
                points=description.points,
            )
            for item in listed[start : start + CHUNK]
        ]

    checked: list[CheckedImage] = []
    # Pillow warns about damaged metadata, which nothing here reads; damaged pixels are errors.
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for chunk in pool.map(check_chunk, range(0, len(listed), CHUNK)):
            checked += chunk
            if progress is not None:
                progress(len(checked), len(listed))
    return checked
