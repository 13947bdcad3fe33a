from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from discreet.errors import ConfigurationError, ModelError
from discreet.yolo.model import build_model, open_source, set_norm, train_mode
from discreet.yolo.parts import select_trainable

from .conftest import ARCHITECTURE, IMGSZ, NAMES, make_model
from .test_recipe_runs import WEIGHTS


def source(names: tuple[str, ...]) -> DetectionModel:
    torch.manual_seed(1)
    model = build_model(open_source(ARCHITECTURE), names=names, imgsz=IMGSZ)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def test_known_classes_keep_their_rows_and_new_ones_start_at_the_mean():
    old = source(("cat", "dog", "white cell"))
    new = build_model(old, names=NAMES, imgsz=IMGSZ)
    for row, old_row in zip(new.model[-1].cv3, old.model[-1].cv3, strict=True):
        assert torch.equal(row[-1].weight[1], old_row[-1].weight[2])  # white cell
        assert torch.allclose(row[-1].weight[0], old_row[-1].weight.mean(0))
        anchors = sum((IMGSZ / s) ** 2 for s in (8, 16, 32))
        prior = 10 / (3 * anchors)
        assert row[-1].bias[0].item() == pytest.approx(math.log(prior / (1 - prior)), rel=1e-5)


def test_the_class_branch_survives_another_number_of_classes():
    old = source(("cat", "dog"))
    new = build_model(old, names=NAMES, imgsz=IMGSZ)
    for row, old_row in zip(new.model[-1].cv3, old.model[-1].cv3, strict=True):
        assert torch.equal(row[0].conv.weight, old_row[0].conv.weight)
    assert torch.equal(new.model[0].conv.weight, old.model[0].conv.weight)


def test_group_norm_starts_from_standardised_channels():
    frozen, group = make_model("frozen"), make_model("frozen")
    set_norm(group, "group")
    assert not [m for m in group.modules() if isinstance(m, nn.BatchNorm2d)]
    norms = [m for m in group.modules() if isinstance(m, nn.GroupNorm)]
    assert all(m.num_channels / m.num_groups >= 4 and m.num_groups <= 32 for m in norms)
    assert max(m.num_groups for m in norms) == 32
    assert {m.eps for m in norms} == {1e-3}
    # What the convolution gives GroupNorm is what BatchNorm made of it, before γ and β.
    image = torch.rand(2, 3, IMGSZ, IMGSZ)
    conv, norm = frozen.model[0].conv, frozen.model[0].bn
    standard = (norm(conv(image)) - norm.bias[:, None, None]) / norm.weight[:, None, None]
    assert torch.allclose(group.model[0].conv(image), standard, atol=1e-4)
    assert torch.equal(group.model[0].bn.weight, norm.weight)


def test_training_mode_leaves_batchnorm_in_evaluation():
    model = make_model("frozen")
    model.eval()
    train_mode(model)
    assert model.training
    assert model.model[-1].training
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_parts_of_trainable():
    model = make_model()

    def names(part: str, **freeze: object) -> set[str]:
        return set(select_trainable(model, part, **freeze))

    everything = {n for n, _ in model.named_parameters() if ".dfl." not in n}
    assert names("all") == everything
    assert all(".bn." in name for name in names("film"))
    assert names("head") == {
        f"model.22.{branch}.{i}.2.{kind}"
        for branch in ("cv2", "cv3")
        for i in range(3)
        for kind in ("weight", "bias")
    }
    assert names("film+head") == names("film") | names("head")
    assert names("whole_head") == {n for n in everything if n.startswith("model.22.")}
    assert names("all", freeze=10) == {n for n in everything if int(n.split(".")[1]) >= 10}
    assert names("all", freeze=["22.cv2"]) == {n for n in everything if ".22.cv2." not in n}
    requires = {n for n, p in model.named_parameters() if p.requires_grad}
    assert requires == names("all", freeze=["22.cv2"])


def test_freezing_everything_is_refused():
    with pytest.raises(ConfigurationError, match="nothing is left"):
        select_trainable(make_model(), "all", freeze=23)


@pytest.mark.parametrize("name", ["yolov8s-world.yaml", "yolo26n-sem.yaml"])
def test_tasks_without_a_loss_per_image_are_refused(name: str):
    with pytest.raises(ModelError, match=r"no task that is trained|no such architecture"):
        open_source(name)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path):
    broken = torch.load(WEIGHTS, weights_only=False)
    next(broken["model"].parameters()).data[0] = float("nan")
    torch.save(broken, tmp_path / "diverged.pt")
    with pytest.raises(ModelError, match="not finite numbers") as error:
        open_source(tmp_path / "diverged.pt")
    assert error.value.where == f"model={tmp_path / 'diverged.pt'}"


def test_a_checkpoint_with_foreign_code_is_not_run(tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "ran", "x"))

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="without running code"):
        open_source(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
