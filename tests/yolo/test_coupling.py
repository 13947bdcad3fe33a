"""One test a row: what one image can do to another image's contribution, with its treatment.

Each test changes the *other* images as far as it can, and shows that the first image's
contribution stays; then it takes the treatment out and shows that the same comparison notices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.loss import v8DetectionLoss

from discreet.arguments import split_arguments
from discreet.clipping import FlatClipping
from discreet.data import load_dataset
from discreet.errors import DatasetError, DiscreetError, ModelError, UnsafeArgumentError
from discreet.gradients import make_engine
from discreet.yolo.dataset import ImageSettings, RecordDataset
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.train import PrivateDetectionTrainer

from .conftest import contributions, make_batch, make_model, only, relative, trained

pytestmark = pytest.mark.usefixtures("unchecked")

UNCHANGED, NOTICED = 1e-6, 1e-2
ROUNDING = 1e-4  # another batch size runs other kernels
# The same image beside ordinary, overfull and empty neighbours.
NEIGHBOURS = ([3, 1, 2], [3, 300, 0], [3, 0, 0])


def batch_beside(boxes: Sequence[int], *, others: int) -> dict[str, torch.Tensor]:
    batch, other = make_batch(boxes), make_batch(boxes, seed=others)
    batch["img"][1:] = other["img"][1:]
    return batch


@pytest.mark.parametrize("norm", ["frozen", "group"])
@pytest.mark.parametrize("boxes", NEIGHBOURS[1:])
def test_normalisation_and_loss_do_not_couple(norm: str, boxes: list[int]):
    model = make_model(norm)
    before = contributions(model, make_batch(NEIGHBOURS[0]))[0]
    after = contributions(model, batch_beside(boxes, others=9))[0]
    assert relative(after, before) < UNCHANGED
    alone = contributions(model, only(make_batch(NEIGHBOURS[0]), 0))[0]
    assert relative(alone, before) < ROUNDING


def single_gradient(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Gradient of the first image's own loss terms, by plain autograd: no engine to refuse."""
    loss = PerImageLoss(model)(model(batch["img"]), batch).sum(1)[0]
    parts = torch.autograd.grad(loss, list(trained(model).values()), allow_unused=True)
    return torch.cat([part.flatten() for part in parts if part is not None])


def test_batchnorm_in_training_mode_couples_and_the_engine_refuses_it():
    model = make_model("frozen")
    model.train()  # the treatment taken out
    before = single_gradient(model, make_batch(NEIGHBOURS[0]))
    after = single_gradient(model, batch_beside(NEIGHBOURS[0], others=9))
    assert relative(after, before) > NOTICED
    with pytest.raises(ModelError, match=r"model\.0\.bn"):
        contributions(model, make_batch(NEIGHBOURS[0]))


def test_batchnorm_statistics_stay_public():
    model = make_model("frozen")
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    contributions(model, make_batch(NEIGHBOURS[0]))
    for name, value in model.named_buffers():
        assert torch.equal(value, buffers[name]), name


def test_ultralytics_own_loss_couples():
    model = make_model("frozen")
    stock = v8DetectionLoss(model)

    def first(boxes: list[int]) -> torch.Tensor:
        # The first image's share of the stock loss: its terms over the whole batch's sum.
        batch = make_batch(boxes)
        predictions = model(batch["img"])
        image = torch.autograd.grad(
            stock(predictions, batch)[0].sum(), predictions["scores"], retain_graph=True
        )[0]
        return image[0]

    assert relative(first([3, 300, 0]), first([3, 1, 2])) > NOTICED


def test_the_per_image_loss_is_ultralytics_loss_of_that_image_alone():
    model = make_model("frozen")
    stock, ours, batch = v8DetectionLoss(model), PerImageLoss(model), make_batch([3, 0, 40, 1])
    together = ours(model(batch["img"]), batch)
    for i in range(4):
        alone = only(batch, i)
        expected = stock(model(alone["img"]), alone)[0]
        assert torch.allclose(together[i], expected, rtol=1e-4, atol=1e-5)


# ---- images that mix before the model sees them ----


def records(scenes: Path) -> tuple:
    return load_dataset(scenes).train


def dataset(scenes: Path, images: Sequence, **settings: float) -> RecordDataset:
    hyp = SimpleNamespace(**{**vars(DEFAULT_CFG), **settings})
    data = {"names": dict(enumerate(["a", "b", "c"])), "nc": 3, "channels": 3}
    return RecordDataset(images, ImageSettings(data=data, imgsz=64, hyp=hyp, augment=True, seed=3))


MIXING = [{"mosaic": 1.0}, {"mixup": 1.0}, {"cutmix": 1.0}, {"copy_paste": 1.0}]


@pytest.mark.parametrize("settings", MIXING, ids=lambda s: next(iter(s)))
def test_one_training_image_is_a_function_of_one_file(
    scenes: Path, settings: dict[str, float], monkeypatch: pytest.MonkeyPatch
):
    all_of_them = records(scenes)
    # Even with the setting forced on, neighbours do not matter …
    few, many = all_of_them[:2], all_of_them[:1] + all_of_them[10:]
    a = dataset(scenes, few, **settings)[(7, 0)]
    b = dataset(scenes, many, **settings)[(7, 0)]
    assert torch.equal(a["img"], b["img"])
    assert torch.equal(a["bboxes"], b["bboxes"])
    if "copy_paste" in settings:
        return  # pastes within an image unless segments are given
    # … and with Ultralytics' own transforms they do.
    monkeypatch.setattr(RecordDataset, "build_transforms", YOLODataset.build_transforms)
    mixed = [dataset(scenes, images, **settings) for images in (few, many)]
    for images in mixed:
        images.buffer = list(range(images.ni))
    pairs = [[images[(step, 0)] for images in mixed] for step in range(4)]
    assert any(not torch.equal(x["img"], y["img"]) for x, y in pairs)


@pytest.mark.parametrize("key", ["mosaic", "mixup", "cutmix", "copy_paste"])
def test_mixing_is_refused_by_name(key: str):
    with pytest.raises(UnsafeArgumentError, match=key):
        split_arguments({"epsilon": 8, key: 0.5})


def test_augmentation_depends_on_step_and_image_only(scenes: Path):
    images = dataset(scenes, records(scenes))
    first = images[(7, 3)]["img"]
    np.random.seed(0)
    torch.manual_seed(0)
    images[(7, 4)]
    assert torch.equal(images[(7, 3)]["img"], first)
    assert not torch.equal(images[(8, 3)]["img"], first)


@pytest.mark.parametrize("removed", [0, 2, 5])
def test_removing_an_image_leaves_all_others_as_they_were(scenes: Path, removed: int):
    images = records(scenes)
    others = images[:removed] + images[removed + 1 :]
    whole, without = dataset(scenes, images), dataset(scenes, others)
    for i, record in enumerate(others):
        place = i if i < removed else i + 1
        assert images[place] is record
        before, after = whole[(4, place)], without[(4, i)]
        assert torch.equal(before["img"], after["img"])
        assert torch.equal(before["bboxes"], after["bboxes"])


@pytest.mark.parametrize("bound", [1.0, 1e6])
def test_removing_one_image_moves_the_augmented_clipped_sum_by_at_most_the_bound(
    scenes: Path, bound: float
):
    """The whole path of an image, from the file to the sum: the declared sensitivity is true."""
    model, images = make_model("group"), records(scenes)[:8]
    parameters, loss = trained(model), PerImageLoss(model)
    clipping = FlatClipping(max_grad_norm=bound)

    def summed(chosen: Sequence) -> tuple[torch.Tensor, torch.Tensor]:
        loaded = dataset(scenes, chosen)
        batch = YOLODataset.collate_fn([loaded[(4, i)] for i in range(len(chosen))])
        batch["img"] = batch["img"].float() / 255
        gradients = make_engine("discreet", model, parameters).per_example_gradients(
            lambda: loss(model(batch["img"]), batch).sum(1)
        )
        sums = clipping.clip_and_sum(gradients).sums
        norms = torch.stack(list(gradients.squared_norms.values())).sum(0).sqrt()
        return torch.cat([sums[name].flatten() for name in parameters]), norms

    whole, norms = summed(images)
    for removed in (0, 3, 7):
        without, _ = summed(images[:removed] + images[removed + 1 :])
        moved = float((whole - without).norm())
        assert moved <= min(bound, float(norms[removed])) * 1.001


def test_rectangles_are_refused(scenes: Path):
    with pytest.raises(UnsafeArgumentError, match="rect"):
        split_arguments({"epsilon": 8, "rect": True})
    with pytest.raises(ValueError, match="rectangular"):
        RecordDataset(
            records(scenes),
            ImageSettings(
                data={"names": {0: "a"}, "nc": 1, "channels": 3},
                imgsz=64,
                hyp=DEFAULT_CFG,
                augment=True,
                rect=True,
            ),
        )


def test_training_images_are_square_whatever_their_neighbours(scenes: Path):
    assert dataset(scenes, records(scenes)[:1])[(0, 0)]["img"].shape == (3, 64, 64)


# ---- statistics of the private set ----


@pytest.mark.parametrize(
    "given",
    [
        {"cls_pw": 0.5},
        {"image_weights": True},
        {"autoanchor": True},
        {"quantize": 8},
        {"distill_model": "teacher.pt"},
        {"patience": 5},
        {"plots": True},
    ],
    ids=lambda given: next(iter(given)),
)
def test_statistics_of_private_images_are_refused(given: dict[str, object]):
    with pytest.raises(UnsafeArgumentError, match=next(iter(given))):
        split_arguments({"epsilon": 8, **given})


def test_automatic_batch_is_refused():
    with pytest.raises(DiscreetError, match="batch"):
        split_arguments({"epsilon": 8, "batch": -1})


def test_class_weights_are_refused_also_inside_the_model():
    model = make_model()
    model.class_weights = torch.tensor([1.0, 5.0, 1.0])
    with pytest.raises(ModelError, match="class weights"):
        PerImageLoss(model)


def test_max_det_is_not_raised_by_the_data(scenes: Path, tmp_path: Path):
    trainer = PrivateDetectionTrainer(
        overrides={
            "data": str(scenes),
            "model": str(Path(__file__).parents[2] / "src/discreet/demo/demo-model.yaml"),
            "epsilon": 8,
            "max_det": 2,
            "steps": 1,
            "imgsz": 64,
            "val": False,
            "project": str(tmp_path),
        }
    )
    trainer.train()
    assert trainer.args.max_det == 2
    assert trainer.model.model[-1].max_det == 300


def test_the_same_image_twice_is_refused(scenes: Path, tmp_path: Path):
    image = records(scenes)[0].image
    (tmp_path / "list.txt").write_text(f"{image}\n{image}\n")
    (tmp_path / "data.yaml").write_text(
        f"train: list.txt\nval: {scenes.parent / 'images/val'}\n"
        "names: [red cell, white cell, platelet]\n"
    )
    with pytest.raises(DatasetError, match="twice"):
        load_dataset(tmp_path / "data.yaml")
