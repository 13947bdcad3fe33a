"""Write synthetic scenes as a data set in Ultralytics' YOLO format."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from discreet import _validate
from discreet.demo.scenes import CLASS_NAMES, REFERENCE_SIZE, SceneStyle, draw_scene
from discreet.errors import StorageError

MARKER = "made-by-discreet-demo.txt"
SPLITS = ("train", "val")

# Near lossless: colour at full resolution, so that platelets keep theirs.
JPEG_QUALITY = 95


def write_dataset(
    folder: Path | str,
    *,
    style: SceneStyle,
    train: int,
    val: int,
    size: int = REFERENCE_SIZE,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a data set of synthetic scenes: images, labels and `data.yaml`.

    The same arguments give the same files, to the byte. Scenes of different seeds, or
    of the two splits, have nothing in common but the style.

    Args:
        folder: Where to; made if absent. A data set made here earlier is replaced.
        style: The laboratory.
        train: Number of training scenes.
        val: Number of validation scenes.
        size: Side of the images, pixels.
        seed: What makes the scenes; not secret, since no real data is involved.
        progress: Called with the number of scenes written so far, and of all scenes.

    Returns:
        The path of `data.yaml`, which is written last.

    Raises:
        ConfigurationError: A count is not a whole number of at least 1, or `seed` is negative.
        StorageError: `folder` holds something else, or cannot be written.
    """
    _validate.positive_int(train=train, val=val)
    _validate.non_negative(seed=seed)
    folder = Path(folder)
    jobs = [
        (split, number)
        for split, count in zip(SPLITS, (train, val), strict=True)
        for number in range(count)
    ]
    try:
        _clear(folder)
        for split in SPLITS:
            (folder / "images" / split).mkdir(parents=True)
            (folder / "labels" / split).mkdir(parents=True)
        for done, (split, number) in enumerate(jobs, start=1):
            image, labels = _render(split, number, style=style, size=size, seed=seed)
            (folder / "images" / split / f"scene_{number:05d}.jpg").write_bytes(image)
            (folder / "labels" / split / f"scene_{number:05d}.txt").write_bytes(labels)
            if progress is not None:
                progress(done, len(jobs))
        data = folder / "data.yaml"
        data.write_bytes(_data_yaml().encode())
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write the demo's data set: {error.strerror or error}",
            where=str(folder),
            do="Choose a folder that can be written and has some 50 MB free.",
        ) from error
    return data


def _clear(folder: Path) -> None:
    """Make `folder`, or empty it of an earlier data set; refuse anything else in it."""
    folder.mkdir(parents=True, exist_ok=True)
    made_here = (folder / MARKER).is_file()
    if made_here:
        (folder / "data.yaml").unlink(missing_ok=True)
        for split in SPLITS:
            for kind, endings in (("images", (".jpg", ".npy")), ("labels", (".txt",))):
                for ending in endings:
                    for file in (folder / kind / split).glob(f"scene_*{ending}"):
                        file.unlink()
                if (folder / kind / split).is_dir() and not any((folder / kind / split).iterdir()):
                    (folder / kind / split).rmdir()
        for cache in (folder / "labels").glob("*.cache"):
            cache.unlink()
        for kind in ("images", "labels"):
            if (folder / kind).is_dir() and not any((folder / kind).iterdir()):
                (folder / kind).rmdir()
    left = sorted(path.name for path in folder.iterdir() if path.name != MARKER or not made_here)
    if left:
        raise StorageError(
            f"the folder is not empty: it holds {left[0]!r}"
            + (f" and {len(left) - 1} more" if len(left) > 1 else ""),
            where=str(folder),
            do="Choose an empty or new folder; only the demo's own files are ever replaced.",
        )
    (folder / MARKER).write_text(
        "Synthetic scenes, made by discreet's demo: no real data. Running the demo again\n"
        "replaces the files of this folder.\n",
        encoding="utf-8",
    )


def _render(
    split: str, number: int, *, style: SceneStyle, size: int, seed: int
) -> tuple[bytes, bytes]:
    """One scene as JPEG, and its labels as text."""
    # A stream of its own for each scene: the first scenes are the same however many follow.
    stream = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), number))
    image, classes, boxes = draw_scene(np.random.default_rng(stream), style, size)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    lines = (
        f"{kind} {' '.join(f'{value:.6f}' for value in box)}\n"
        for kind, box in zip(classes, boxes, strict=True)
    )
    return file.getvalue(), "".join(lines).encode()


def _data_yaml() -> str:
    # No `path:` key: Ultralytics then starts from this file's folder, which may thus be moved.
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASS_NAMES))
    return f"train: images/train\nval: images/val\nnames:\n{names}"
