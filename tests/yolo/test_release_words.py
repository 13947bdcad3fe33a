"""A run may be called anything: what a release says anyway is no secret of it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from discreet.data import load_dataset
from discreet.errors import ReleaseError
from discreet.statement.scan import PrivateWords
from discreet.statement.verify import verify_release
from discreet.yolo import finishing

from .conftest import Run

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize("name", ["stride", "memory", "2026"])
def test_a_run_may_be_called_like_a_word_of_its_release(run: Run, name: str) -> None:
    result = run(name=name, steps=1)
    assert result.release.parent.name == name
    assert verify_release(result.release).valid


def test_groups_may_be_called_by_the_day_of_the_release(run: Run, scenes: Path) -> None:
    today = datetime.now(UTC).date().isoformat()
    folder = scenes.parent.parent / "days"
    shutil.copytree(scenes.parent, folder)
    dataset = load_dataset(folder / scenes.name)
    rows = [
        f"train,{record.image.name},{today if number % 2 else f'camera-{number}'}"
        for number, record in enumerate(dataset.train)
    ]
    groups = folder / "groups.csv"
    groups.write_text("\n".join(["split,image,group", *rows]))
    result = run(data=str(dataset.yaml), groups=str(groups), batch=4, steps=1)
    assert verify_release(result.release).valid


def test_a_name_that_is_no_such_word_is_still_looked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[PrivateWords] = []

    def publish(*args: object, words: PrivateWords, **kwargs: object) -> object:
        found.append(words)
        return original(*args, words=words, **kwargs)  # pyright: ignore

    original = finishing.release.publish
    monkeypatch.setattr(finishing.release, "publish", publish)
    run(name="ward7b", steps=1)
    assert "ward7b" in found[0].names
    assert found[0].found_in(["model.22.ward7b"]) == ["ward7b"]


def test_a_private_name_in_the_weights_is_not_published(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    releasable = finishing.release.releasable

    def leaking(model: object, **kwargs: object) -> object:
        released = releasable(model, **kwargs)  # pyright: ignore
        released.names = {**released.names, 0: "ward7b"}  # pyright: ignore
        return released

    monkeypatch.setattr(finishing.release, "releasable", leaking)
    with pytest.raises(ReleaseError, match="must not leave"):
        run(name="ward7b", steps=1)
