"""RT-DETR's loss: each image's own, and Ultralytics' for a batch of one image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.models.utils.loss import RTDETRDetectionLoss
from ultralytics.nn.tasks import RTDETRDetectionModel

from discreet.errors import ModelError
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.model import train_mode
from discreet.yolo.parts import select_trainable

from .conftest import make_batch, only, relative

CLASSES, QUERIES, LAYERS = 3, 100, 6
BOXES = [3, 0, 80, 1, 100, 0, 130]  # also more than there are queries


class Criterion(nn.Module):
    """The part of a model that the loss asks for."""

    @staticmethod
    def init_criterion() -> RTDETRDetectionLoss:
        return RTDETRDetectionLoss(nc=CLASSES, use_vfl=True)


def make_predictions(images: int) -> list[Tensor]:
    """What a decoder and an encoder could put out; leaves."""
    torch.manual_seed(0)
    boxes, scores = torch.rand(LAYERS, images, QUERIES, 4), torch.randn(LAYERS, images, QUERIES, 3)
    leaves = [boxes, scores, torch.rand(images, QUERIES, 4), torch.randn(images, QUERIES, 3)]
    return [leaf.requires_grad_() for leaf in leaves]


def of_images(predictions: Sequence[Tensor], images: Sequence[int]) -> tuple[Any, ...]:
    boxes, scores, first_boxes, first_scores = predictions
    chosen = list(images)
    return boxes[:, chosen], scores[:, chosen], first_boxes[chosen], first_scores[chosen], None


def of_labels(batch: dict[str, Tensor], images: Sequence[int]) -> dict[str, Tensor]:
    parts = [only(batch, image) for image in images]
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    joined["batch_idx"] = torch.cat([part["batch_idx"] + i for i, part in enumerate(parts)])
    return joined


def stock_loss(predictions: tuple[Any, ...], batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Ultralytics' loss of these predictions: its sum, and its GIoU, class and L1 parts."""
    boxes, scores, first_boxes, first_scores, _ = predictions
    images = len(first_boxes)
    parts = Criterion.init_criterion()(
        (torch.cat((first_boxes[None], boxes)), torch.cat((first_scores[None], scores))),
        {
            "cls": batch["cls"].long().view(-1),
            "bboxes": batch["bboxes"],
            "gt_groups": [int((batch["batch_idx"] == i).sum()) for i in range(images)],
        },
    )
    kinds = ("giou", "class", "bbox")
    terms = [sum(part for name, part in parts.items() if kind in name) for kind in kinds]
    return torch.stack([torch.as_tensor(part) for part in parts.values()]).sum(), torch.stack(terms)


def gradient(loss: Tensor, predictions: Sequence[Tensor]) -> Tensor:
    parts = torch.autograd.grad(loss, list(predictions), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def test_a_batch_of_one_image_has_ultralytics_loss_and_gradient():
    predictions, batch = make_predictions(len(BOXES)), make_batch(BOXES)
    loss = PerImageLoss(Criterion())
    together = loss(of_images(predictions, range(len(BOXES))), batch)
    assert loss.names == ("giou", "cls", "l1")
    assert together.shape == (len(BOXES), 3)
    for i in range(len(BOXES)):
        whole, terms = stock_loss(of_images(predictions, [i]), only(batch, i))
        torch.testing.assert_close(together[i], terms, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together[i].sum(), whole, rtol=1e-5, atol=0)
        expected = gradient(whole, predictions)
        assert relative(gradient(together[i].sum(), predictions), expected) < 1e-5


def test_the_model_itself_agrees_with_ultralytics():
    torch.manual_seed(0)
    model = RTDETRDetectionModel("yolov8n-rtdetr.yaml", nc=CLASSES, verbose=False)
    model.nc = CLASSES  # a trainer would
    train_mode(model)
    loss, batch = PerImageLoss(model), make_batch([3, 0, 40])
    together = loss(model(batch["img"]), batch).sum(1)
    for i in range(3):
        alone = only(batch, i)
        expected = model.loss(alone, preds=model.predict(alone["img"]))[0]
        torch.testing.assert_close(together[i], expected, rtol=1e-4, atol=0)
    evaluated = loss(model.eval()(batch["img"]), batch)  # its last layer alone
    assert evaluated.isfinite().all()


def test_an_image_without_objects_has_a_class_loss_only():
    predictions, batch = make_predictions(2), make_batch([0, 0])
    terms = PerImageLoss(Criterion())(of_images(predictions, [0, 1]), batch)
    assert terms.isfinite().all()
    assert (terms[:, [0, 2]] == 0).all()
    assert (terms[:, 1] > 0).all()
    assert torch.autograd.grad(terms.sum(), predictions[0])[0].abs().max() == 0


@pytest.mark.parametrize("removed", [0, 2, 4])
def test_removing_an_image_leaves_the_other_losses_as_they_were(removed: int):
    predictions, batch = make_predictions(len(BOXES)), make_batch(BOXES)
    loss, everyone = PerImageLoss(Criterion()), list(range(len(BOXES)))
    others = [i for i in everyone if i != removed]
    whole = loss(of_images(predictions, everyone), batch)
    without = loss(of_images(predictions, others), of_labels(batch, others))
    torch.testing.assert_close(without, whole[others], rtol=1e-6, atol=1e-6)


def test_ultralytics_own_loss_couples():
    predictions, batch = make_predictions(3), make_batch([3, 80, 1])

    def first(images: list[int]) -> Tensor:
        whole, _ = stock_loss(of_images(predictions, images), of_labels(batch, images))
        parts = torch.autograd.grad(whole, predictions, retain_graph=True)
        return torch.cat([parts[0][:, 0].flatten(), parts[2][0].flatten()])

    # The share of the first image in the loss of the batch, with and without a crowded one.
    assert relative(first([0, 1, 2]), first([0, 2])) > 0.5


def test_the_order_of_the_labels_does_not_matter():
    predictions, batch = make_predictions(3), make_batch([3, 5, 1])
    loss, order = PerImageLoss(Criterion()), torch.randperm(9)
    shuffled = {k: v if k == "img" else v[order] for k, v in batch.items()}
    found = [loss(of_images(predictions, range(3)), labels) for labels in (batch, shuffled)]
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


def test_half_precision_predictions_are_compared_in_float32():
    predictions, batch = make_predictions(3), make_batch([3, 0, 40])
    halved = [leaf.detach().bfloat16() for leaf in predictions]
    loss = PerImageLoss(Criterion())
    found = loss(of_images(halved, range(3)), batch)
    expected = loss(of_images([leaf.float() for leaf in halved], range(3)), batch)
    assert torch.equal(found, expected)


def test_denoising_queries_are_refused():
    predictions = of_images(make_predictions(2), [0, 1])
    with pytest.raises(ModelError, match="denoising"):
        PerImageLoss(Criterion())((*predictions[:4], {"dn_num_group": 1}), make_batch([1, 2]))


def test_the_table_of_denoising_queries_does_not_train():
    model = RTDETRDetectionModel("yolov8n-rtdetr.yaml", nc=CLASSES, verbose=False)
    selected = select_trainable(model, "all")
    names = {name for name, _ in model.named_parameters()}
    assert names - set(selected) == {"model.22.denoising_class_embed.weight"}
