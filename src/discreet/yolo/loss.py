"""One loss per image.

Ultralytics' detection loss divides by the positive target score of the *whole batch*, so that
one image's objects change every other image's gradient. Here each image is divided by its own:

    loss_i = (box · Σ box terms of i + cls · Σ class terms of i + dfl · Σ dfl terms of i)
             / max(Σ target scores of i, 1)

For a batch of one image both are the same number. B is the number of images, A of anchors.
RT-DETR's loss is in `rtdetr_loss`, those of masks, key points and angles in `single_losses`.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.models.utils.loss import RTDETRDetectionLoss
from ultralytics.utils.loss import E2ELoss, v8ClassificationLoss, v8DetectionLoss
from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.tal import bbox2dist, make_anchors

from discreet.errors import ModelError
from discreet.yolo.class_balance import class_weights
from discreet.yolo.rtdetr_loss import PerImageRTDETRLoss
from discreet.yolo.single_losses import SingleImageLoss

Batch = dict[str, Any]


class PerImageDetectionLoss(v8DetectionLoss):
    """Detection loss of each image, independent of the images beside it.

    Args:
        model: As in Ultralytics' class.
        tal_topk: As in Ultralytics' class.
        tal_topk2: As in Ultralytics' class.
        balance: Exponent p of the weight (total of the image / (its classes · total of the
            class)) ^ p on the positive targets of a class, at most 10; 0 weighs none. Totals are
            of one image's target scores.

    Attributes:
        stride, nc, reg_max, hyp, …: As in Ultralytics' class.
    """

    def __init__(
        self,
        model: Any,
        tal_topk: int = 10,
        tal_topk2: int | None = None,
        *,
        balance: float = 0.0,
    ) -> None:
        super().__init__(model, tal_topk, tal_topk2)
        self.balance = balance

    def per_image(self, predictions: dict[str, Tensor], batch: Batch) -> Tensor:
        """Gain-scaled loss terms.

        Args:
            predictions: The head's training output: `boxes` (B, 4·reg_max, A), `scores`
                (B, nc, A) and the feature maps `feats`.
            batch: `batch_idx` (M,), `cls` (M, 1) and `bboxes` (M, 4) normalised xywh, of the M
                objects of all images.

        Returns:
            (B, 3): box, class and distance terms.
        """
        distances = predictions["boxes"].permute(0, 2, 1).contiguous()  # (B, A, 4·reg_max)
        scores = predictions["scores"].permute(0, 2, 1).contiguous()  # (B, A, nc)
        features = cast(list[Tensor], predictions["feats"])
        anchors, strides = make_anchors(features, self.stride, 0.5)  # (A, 2), (A, 1)
        size = torch.tensor(list(features[0].shape[2:]), device=self.device, dtype=scores.dtype)
        size = size * cast(Any, self).stride[0]  # height, width in pixels
        images = len(scores)

        targets = torch.cat(
            (batch["batch_idx"].view(-1, 1), batch["cls"].view(-1, 1), batch["bboxes"]), 1
        )
        targets = self.preprocess(targets.to(self.device), images, scale_tensor=size[[1, 0, 1, 0]])
        labels, boxes = targets.split((1, 4), 2)  # padded to the fullest image
        mask = boxes.sum(2, keepdim=True).gt_(0.0)

        with torch.no_grad():  # of most anchors no more is asked than this
            everywhere = self.bbox_decode(anchors, distances)  # (B, A, 4) xyxy in strides
        _, target_boxes, target_scores, foreground, _ = self.assigner(
            scores.detach().sigmoid(),
            (everywhere * strides).type(boxes.dtype),
            anchors * strides,
            labels,
            boxes,
            mask,
        )
        target_scores = target_scores.to(scores.dtype)
        normaliser = target_scores.sum((1, 2)).clamp(min=1)  # (B,), each image's own

        class_terms = self.bce(scores, target_scores)
        if self.balance:
            class_terms = class_terms * class_weights(target_scores, self.balance)
        class_terms = class_terms.sum((1, 2))
        image, anchor = foreground.nonzero(as_tuple=True)
        weight = target_scores[image, anchor].sum(-1)
        target = target_boxes[image, anchor] / strides[anchor]
        chosen = distances[image, anchor]  # (P, 4·reg_max) of the positives
        predicted = self.bbox_decode(anchors[anchor], chosen[None])[0]
        overlap = bbox_iou(predicted, target, xywh=False, CIoU=True).squeeze(-1)
        box_terms = _sum_by_image((1.0 - overlap) * weight, image, images)
        distance = self._distance_loss(chosen, anchors[anchor], target, strides[anchor], size)
        distance_terms = _sum_by_image(distance * weight, image, images)

        terms = torch.stack((box_terms, class_terms, distance_terms), 1) / normaliser[:, None]
        gains = cast(Any, self.hyp)
        return terms * terms.new_tensor([gains.box, gains.cls, gains.dfl])

    def _distance_loss(
        self, predicted: Tensor, anchors: Tensor, target: Tensor, strides: Tensor, size: Tensor
    ) -> Tensor:
        """Distribution focal loss, or L1 for heads without a distribution; (P,) positives."""
        if self.use_dfl:
            ltrb = bbox2dist(anchors, target, self.reg_max - 1)
            return (
                cast(Any, self.bbox_loss)
                .dfl_loss(predicted.view(-1, self.reg_max), ltrb)
                .squeeze(-1)
            )
        scale = strides / size[[1, 0, 1, 0]]  # distances as fractions of the image
        ltrb = bbox2dist(anchors, target)
        return F.l1_loss(predicted * scale, ltrb * scale, reduction="none").mean(-1)


class _Criterion(Protocol):
    def per_image(self, predictions: Any, batch: Batch) -> Tensor: ...


class PerImageClassificationLoss:
    """Cross entropy of each image: Ultralytics' without the mean over the batch."""

    def per_image(self, predictions: Tensor, batch: Batch) -> Tensor:
        """The loss, (B, 1), of logits (B, nc) and `cls` (B,)."""
        return F.cross_entropy(predictions, batch["cls"].long(), reduction="none")[:, None]


class PerImageLoss:
    """Loss of each image, for every task.

    Args:
        model: A model with its hyperparameters attached (`box`, `cls`, `dfl`, … in `model.args`;
            RT-DETR and classification have their own constants).
        balance: See `PerImageDetectionLoss`; RT-DETR and classification have none.

    Attributes:
        names: What the T loss terms are called in Ultralytics, in order.

    Raises:
        ModelError: If the model's own criterion has no per-image form here, or weighs classes
            by a histogram.
    """

    def __init__(self, model: nn.Module, *, balance: float = 0.0) -> None:
        if getattr(model, "class_weights", None) is not None:
            raise ModelError(
                "class weights come from the label histogram of the private images",
                where="class_weights",
                do="remove them from the model",
            )
        stock = cast(Any, model).init_criterion()
        self._branches: list[tuple[str | None, _Criterion, float]]
        if isinstance(stock, E2ELoss):
            # The one-to-many branch fades over public epochs in Ultralytics; here both keep
            # their first weights.
            many, one = (
                _criterion(model, stock.one2many, balance),
                _criterion(model, stock.one2one, balance, tal_topk=7, tal_topk2=1),
            )
            self._branches = [("one2many", many, stock.o2m), ("one2one", one, stock.o2o)]
            stock = stock.one2many
        else:
            self._branches = [(None, _criterion(model, stock, balance), 1.0)]
        self.names = _term_names(stock)

    def __call__(self, predictions: Any, batch: Batch) -> Tensor:
        """Loss terms of each image, shape (B, T); their sum over terms is the image's loss."""
        # In evaluation mode a model returns its detections too, before what it trains on.
        detected = isinstance(predictions, tuple) and len(cast(tuple[Any, ...], predictions)) == 2
        output: Any = predictions[1] if detected else predictions
        terms = [
            gain * loss.per_image(output if key is None else output[key], batch)
            for key, loss, gain in self._branches
        ]
        return torch.stack(terms).sum(0)


def _criterion(model: nn.Module, stock: Any, balance: float, **assigner: int) -> _Criterion:
    """The per-image form of a criterion of Ultralytics.

    Raises:
        ModelError: There is none.
    """
    if type(stock) is v8DetectionLoss:
        return PerImageDetectionLoss(model, balance=balance, **assigner)
    if type(stock) is RTDETRDetectionLoss:
        return PerImageRTDETRLoss(stock)
    if type(stock) is v8ClassificationLoss:
        return PerImageClassificationLoss()
    if SingleImageLoss.takes(stock):
        return SingleImageLoss(stock, balance=balance)
    raise ModelError(
        f"no per-image loss for {type(stock).__name__}",
        where=type(model).__name__,
        do="use a model of a task that is trained privately, such as YOLOv8",
    )


def _term_names(stock: Any) -> tuple[str, ...]:
    if type(stock) is RTDETRDetectionLoss:
        return ("giou", "cls", "l1")
    return tuple(name.removesuffix("_loss") for name in getattr(stock, "loss_names", ("loss",)))


def _sum_by_image(values: Tensor, image: Tensor, images: int) -> Tensor:
    return values.new_zeros(images).index_add(0, image, values)
