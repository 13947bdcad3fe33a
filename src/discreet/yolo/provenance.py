"""Where weights come from, as far as their file says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Self

from torch import nn
from ultralytics.utils import DATASETS_DIR

from discreet.data import DetectionDataset, training_files
from discreet.errors import DatasetError, UnsafeArgumentError
from discreet.statement.summary import KEY
from discreet.yolo._compat import load_checkpoint
from discreet.yolo.checkpoint import file_digest

_HEAD = 2**12  # bytes, which tell most files of one size apart
_NONE: frozenset[Path] = frozenset()


@dataclass(frozen=True, kw_only=True)
class PrivateImages:
    """Images that public weights must not have seen.

    Attributes:
        file: The data set's file, or its folder of class folders.
        images: Its training images; those that are here.
    """

    file: Path
    images: Collection[Path]

    @classmethod
    def of(cls, dataset: DetectionDataset) -> Self:
        """Those of a data set that was read."""
        return cls(file=dataset.yaml, images=[record.image for record in dataset.train])

    @classmethod
    def named_by(cls, file: Path) -> Self:
        """Those of a data set that may have been here."""
        return cls(file=file, images=_images_of(file))

    def has_any_of(self, files: Collection[Path]) -> bool:
        """Whether some of these files hold the same bytes as some of the images."""
        ours, theirs = self.images, files
        steps: tuple[Callable[[Path], object], ...] = (_size, _head, file_digest)
        for read in steps:
            known, others = _by(read, ours), _by(read, theirs)
            both = (known.keys() & others.keys()) - {None}
            ours = [file for key in both for file in known[key]]
            theirs = [file for key in both for file in others[key]]
        return bool(ours)


def require_public_start(weights: Path, *, argument: str, private: Sequence[PrivateImages]) -> None:
    """Refuse to start from weights that private images are in: the record calls them public.

    Args:
        weights: The file, as `load_checkpoint` takes it.
        argument: What it was given as.
        private: The private images of the run, or those of its teachers, as far as one knows.

    Raises:
        UnsafeArgumentError: They were trained on private images, or on this data set.
    """
    model, checkpoint = load_checkpoint(weights, argument=argument)
    where = f"{argument}={weights}"
    if KEY in checkpoint:
        raise UnsafeArgumentError(
            "the weights were trained on private images, and are not public",
            where=where,
            do="start from public weights, or from an architecture such as yolov8n.yaml; "
            "discreet distill teacher=RELEASE takes what a private model knows, and counts what "
            "it has spent",
        )
    trained_on = named_data_set(model, checkpoint)
    for images in private:
        require_elsewhere(
            trained_on,
            images,
            what="the weights",
            where=where,
            do="start from weights that were trained on public images, such as yolov8n.pt",
        )


def named_data_set(model: nn.Module, checkpoint: Mapping[str, Any]) -> str | None:
    """The data set file that Ultralytics noted in the checkpoint."""
    for settings in (checkpoint.get("train_args"), getattr(model, "args", None)):
        known = settings if isinstance(settings, Mapping) else getattr(settings, "__dict__", {})
        if named := known.get("data"):
            return str(named)
    return None


def require_elsewhere(
    trained_on: str | None, private: PrivateImages | None, *, what: str, where: str, do: str
) -> None:
    """Refuse what was trained on these images, as far as its file and this machine tell.

    A name is no proof, since another machine may have another data set of that name. So whoever
    knows better is told what to rename.

    Args:
        trained_on: The data set file that it names, as `named_data_set` finds it.
        private: The private images; None where there are none.
        what: What was trained.
        where: The argument that gives it.
        do: What to use in its place.

    Raises:
        UnsafeArgumentError: It was, or may have been.
    """
    if trained_on is None or private is None:
        return
    file = Path(trained_on)
    if _is_same_file(file, private.file):
        why, other = "which here is this data set", private.file
    elif private.has_any_of(seen := _images_of(file)):
        why, other = "which here has images of this data set", file
    elif seen and private.images and file.is_absolute():
        return  # it is here, and has others
    elif _called_alike(trained_on, private.file):
        why, other = "which may be this data set: it is called so", private.file
    else:
        return
    raise UnsafeArgumentError(
        f"{what} trained without privacy on {trained_on}, {why}",
        where=where,
        do=f"{do}; if they come from elsewhere and have seen other images, rename {other}, so "
        "that the names differ",
    )


def _images_of(file: Path) -> frozenset[Path]:
    """Training images of a data set, where it and they are here, as Ultralytics looks for them."""
    try:
        return training_files(file, bases=(Path.cwd(), DATASETS_DIR)) if file.exists() else _NONE
    except (DatasetError, OSError, ValueError):
        return _NONE


def _is_same_file(one: Path, other: Path) -> bool:
    """Whether both lead to one file that is here."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # it is not here, or may not be looked at
        return False


def _by(read: Callable[[Path], object], files: Collection[Path]) -> dict[object, list[Path]]:
    """Files by something that is read of them; None for those that cannot be read."""
    found: dict[object, list[Path]] = {}
    for file in files:
        try:
            key = read(file)
        except OSError:
            key = None
        found.setdefault(key, []).append(file)
    return found


def _size(file: Path) -> int:
    return file.stat().st_size


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.sha256(stream.read(_HEAD)).digest()


def _called_alike(trained_on: str, ours: Path) -> bool:
    """Whether a file may be ours by its folder and name, as far as it names them."""
    ends: list[str] = []
    for part in PureWindowsPath(trained_on).parts:  # knows the separators of all systems
        if part != "..":
            ends.append(part)
        elif ends:
            ends.pop()
    ends = ends[-2:]
    spellings = (ours.absolute(), ours.resolve())
    return any(list(spelt.parts[-len(ends) :]) == ends for spelt in spellings) if ends else False
