"""A tiny data set on disk, to be spoilt by each test in one way."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from discreet.data import DetectionDataset, load_dataset
from discreet.errors import DatasetError


class TinyDataset:
    """Three training and two validation images in Ultralytics' usual layout, two classes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.yaml = root / "data.yaml"
        self._seed = 0
        for split, number in (("train", 3), ("val", 2)):
            for index in range(number):
                self.add(
                    f"images/{split}/{split}{index}.jpg", "0 0.5 0.5 0.4 0.4\n1 0.2 0.2 0.1 0.1\n"
                )
        self.write("data.yaml", "train: images/train\nval: images/val\nnc: 2\nnames: [cell, dot]\n")

    def image(self, width: int = 16, height: int = 12) -> Image.Image:
        """A new random image, unlike all others."""
        self._seed += 1
        pixels = np.random.default_rng(self._seed).integers(0, 256, (height, width, 3), np.uint8)
        return Image.fromarray(pixels)

    def add(self, name: str, labels: str | None = None, **save: object) -> Path:
        """Write a new image, and labels for it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.image().save(path, **save)
        if labels is not None:
            self.write(name.replace("images/", "labels/").rpartition(".")[0] + ".txt", labels)
        return path

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def load(self, **arguments: object) -> DetectionDataset:
        return load_dataset(self.yaml, **arguments)

    def problems(self, **arguments: object) -> tuple[str, ...]:
        """The problems that loading reports."""
        with pytest.raises(DatasetError) as error:
            self.load(**arguments)
        assert str(self.yaml) in str(error.value)
        return error.value.problems

    def problem(self, **arguments: object) -> str:
        """The one problem that loading reports."""
        (problem,) = self.problems(**arguments)
        return problem

    def state(self) -> dict[str, tuple[int, int, bytes | None]]:
        """Every name below the folder with its mode, time of change and bytes."""
        found: dict[str, tuple[int, int, bytes | None]] = {}
        for path in [self.root, *self.root.rglob("*")]:
            status, content = path.lstat(), None
            if stat.S_ISREG(status.st_mode):
                with path.open("rb") as file:  # not read_bytes, which a test may take away
                    content = file.read()
            found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
        return found


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[TinyDataset]:
    """A sound tiny data set. Whatever a test does with it, loading must leave no trace."""
    dataset = TinyDataset(tmp_path / "tiny")
    load = dataset.load

    def load_without_trace(**arguments: object) -> DetectionDataset:
        before = dataset.state()
        try:
            return load(**arguments)
        finally:
            assert dataset.state() == before, "loading changed the data set's folder"

    dataset.load = load_without_trace  # type: ignore[method-assign]
    return dataset


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Take away the right to read a file; the superuser reads on, so reading is made to fail."""

    def forbid(path: Path) -> None:
        original = Path.read_bytes

        def read_bytes(self: Path) -> bytes:
            if self == path:
                raise PermissionError(13, "Permission denied", str(self))
            return original(self)

        monkeypatch.setattr(Path, "read_bytes", read_bytes)

    return forbid
