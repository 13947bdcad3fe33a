"""What weights were trained on, as far as their file and this machine tell."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from discreet.data import load_dataset
from discreet.demo.dataset import write_dataset
from discreet.demo.scenes import PUBLIC
from discreet.errors import UnsafeArgumentError
from discreet.yolo import provenance
from discreet.yolo.provenance import PrivateImages, named_data_set, require_elsewhere

from ..models.data import write_shapes


def test_names_are_compared_as_they_are_spelt_and_as_they_lead(scenes: Path, tmp_path: Path):
    link = tmp_path / "current"
    link.symlink_to(scenes.parent)
    private = PrivateImages.of(load_dataset(link / scenes.name))
    folder, name = scenes.parent.name, scenes.name
    for noted in (
        f"current/{name}", f"/gone/current/{name}", f"current/x/../{name}", f"/gone/{folder}/{name}"
    ):  # fmt: skip
        with pytest.raises(UnsafeArgumentError, match="it is called so"):
            require_elsewhere(noted, private, what="it", where="model=m.pt", do="do")
    shut = tmp_path / "shut"
    (shut / "inside").mkdir(parents=True)
    shut.chmod(0)
    harmless = (
        str(shut / "inside" / "d.yaml"),
        str(["/data/set"] * 999),
        "",
        "\0",
        "/",
        "http://a",
    )
    try:
        for noted in harmless:
            require_elsewhere(noted, private, what="it", where="model=m.pt", do="do")
    finally:
        shut.chmod(0o700)


def refusal(noted: Path | str, private: PrivateImages) -> str:
    """Why weights that note this data set are refused; empty where they are taken."""
    try:
        require_elsewhere(str(noted), private, what="it", where="model=m.pt", do="do")
    except UnsafeArgumentError as error:
        return str(error)
    return ""


def test_a_data_set_file_whose_images_have_moved_is_known_by_its_name(scenes: Path, tmp_path: Path):
    moved = Path(shutil.copytree(scenes.parent, tmp_path / "new" / "set")) / scenes.name
    left = tmp_path / "old" / "set" / scenes.name
    left.parent.mkdir(parents=True)
    shutil.copy(scenes, left)
    private = PrivateImages.of(load_dataset(moved))
    assert "called so" in (words := refusal(left, private)) and f"rename {moved}, so" in words
    other = write_dataset(tmp_path / "other" / "set", style=PUBLIC, train=4, val=2, size=64, seed=3)
    other = other.rename(other.with_name(scenes.name))
    assert not refusal(other, private)
    gone = PrivateImages.named_by(tmp_path / "gone" / "set" / scenes.name)
    assert "it is called so" in refusal(other, gone)  # there is nothing to compare it with


def test_a_file_without_a_path_names_images_beside_it_only(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    described = {k: v for k, v in yaml.safe_load(scenes.read_text()).items() if k != "path"}
    mine = Path(shutil.copytree(scenes.parent, tmp_path / "private")) / scenes.name
    mine.write_text(yaml.safe_dump(described))
    (tmp_path / "public").mkdir()
    shutil.copy(mine, noted := tmp_path / "public" / "public.yaml")
    monkeypatch.chdir(mine.parent)
    assert not refusal(noted, PrivateImages.of(load_dataset(mine)))


def test_relative_folders_are_looked_for_where_ultralytics_looks(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    described = yaml.safe_load(scenes.read_text()) | {"path": "mine"}
    (noted := tmp_path / "elsewhere.yaml").write_text(yaml.safe_dump(described))
    private = PrivateImages.of(load_dataset(scenes))
    assert not refusal(noted, private)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine").symlink_to(scenes.parent)
    monkeypatch.chdir(tmp_path / "work")
    assert "images of this data set" in refusal(noted, private)
    monkeypatch.chdir(tmp_path)
    assert not refusal(noted, private)
    monkeypatch.setattr(provenance, "DATASETS_DIR", tmp_path / "work")
    assert "images of this data set" in refusal(noted, private)


def test_folders_of_classes_are_compared_image_by_image(tmp_path: Path):
    data = write_shapes(tmp_path / "classes", "classify")
    copied = Path(shutil.copytree(data, tmp_path / "copied"))
    (linked := tmp_path / "linked").mkdir()
    for split in ("train", "val"):
        (linked / split).symlink_to(data / split)
    for mine in (data, copied, linked):
        assert refusal(data, PrivateImages.of(load_dataset(mine, task="classify"))), mine
    (copied / "notes.yaml").write_text("- of the second visit\n")
    assert refusal(copied, PrivateImages.of(load_dataset(data, task="classify")))
    other = Path(shutil.copytree(data, tmp_path / "other"))
    for image in other.rglob("*.*"):
        image.write_bytes(image.read_bytes() + b"\0")
    assert not refusal(other, PrivateImages.of(load_dataset(data, task="classify")))


def test_copies_are_found_among_files_of_one_size(tmp_path: Path):
    for number in range(4):
        (tmp_path / f"{number}.bmp").write_bytes(bytes(2**17) + bytes([number]))
    same = shutil.copy(tmp_path / "2.bmp", tmp_path / "again.bmp")
    files = [tmp_path / f"{number}.bmp" for number in range(4)]
    private = PrivateImages(file=tmp_path / "d.yaml", images=files[:3])
    gone = tmp_path / "gone.bmp"
    assert not private.has_any_of([files[3], gone])
    assert not PrivateImages(file=gone, images=[gone]).has_any_of([gone])
    assert private.has_any_of([files[3], Path(same)])


def test_what_a_model_was_trained_on_is_read_from_all_kinds_of_arguments():
    for kind in (dict, SimpleNamespace):
        model: Any = torch.nn.Linear(1, 1)
        model.args = kind(data="set.yaml")
        assert named_data_set(model, {}) == "set.yaml"
        assert named_data_set(torch.nn.Linear(1, 1), {"train_args": kind(data="a")}) == "a"
    assert named_data_set(torch.nn.Linear(1, 1), {"train_args": None}) is None
