"""One loss per image for RT-DETR.

Ultralytics' loss divides by the objects of the *whole batch*, changes its class term when the
batch has none, and adds denoising queries whose number follows the fullest image. Here, with n
the image's own matched objects and each sum over the encoder's and all decoder layers' queries:

    loss_i = Σ (giou · Σ giou terms of i + cls · Σ class terms of i + l1 · Σ distances of i)
             / max(n_i, 1)

For a batch of one image, and without denoising, both are the same number. B is the number of
images, L of layers, Q of queries, C of classes, M of objects, P of matches in all layers.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from ultralytics.models.utils.loss import RTDETRDetectionLoss
from ultralytics.utils.loss import FocalLoss, VarifocalLoss
from ultralytics.utils.metrics import bbox_iou

from discreet.errors import ModelError

Batch = dict[str, Any]


class PerImageRTDETRLoss:
    """Loss of each image, independent of the images beside it.

    Args:
        stock: The model's own criterion, for its matcher and its constants.

    Raises:
        ModelError: If the criterion is not set up as RT-DETR's is.
    """

    def __init__(self, stock: RTDETRDetectionLoss) -> None:
        if stock.fl is None or stock.vfl is None or not stock.aux_loss or stock.use_uni_match:
            raise ModelError(
                "no per-image loss for this setting of RTDETRDetectionLoss",
                where="init_criterion",
                do="use the criterion that RT-DETR comes with",
            )
        self._stock = stock
        self._focal: FocalLoss = stock.fl
        self._varifocal: VarifocalLoss = stock.vfl

    def per_image(self, predictions: Any, batch: Batch) -> Tensor:
        """Gain-scaled loss terms, summed over layers.

        Args:
            predictions: The model's output without targets: boxes and scores of the decoder,
                (L - 1, B, Q, 4) and (L - 1, B, Q, C), and of the encoder, (B, Q, 4) and (B, Q, C).
            batch: `batch_idx` (M,), `cls` (M, 1) and `bboxes` (M, 4) normalised xywh.

        Returns:
            (B, 3): GIoU, class and L1 terms.

        Raises:
            ModelError: If there are denoising queries among the predictions.
        """
        boxes, scores = _layers(predictions)
        layers, images, queries, classes = scores.shape
        index = batch["batch_idx"].view(-1).long().cpu()
        order = index.argsort(stable=True).to(
            scores.device
        )  # the matcher takes them image by image
        groups = index.bincount(minlength=images).tolist()
        labels = batch["cls"].to(scores.device).view(-1).long()[order]
        targets = batch["bboxes"].to(boxes)[order]

        # All layers at once, as if they were more images: each is matched alone anyway.
        rows = layers * images
        boxes, scores = boxes.reshape(rows, queries, 4), scores.reshape(rows, queries, classes)
        labels, targets = labels.repeat(layers), targets.repeat(layers, 1)
        matches = self._stock.matcher(boxes, scores, targets, labels, groups * layers)
        row, query, found = _flat(matches, scores.device)
        objects = torch.tensor(groups * layers, device=scores.device).clamp(max=queries)

        predicted, target = boxes[row, query], targets[found]  # (P, 4)
        overlap = bbox_iou(predicted, target, xywh=True, GIoU=True).squeeze(-1)
        distance = (predicted - target).abs().sum(-1)
        box_terms = boxes.new_zeros(rows, 2).index_add(
            0, row, torch.stack((1.0 - overlap, distance), 1)
        )
        quality, matched = torch.zeros_like(scores), torch.zeros_like(scores)
        quality[row, query, labels[found]] = bbox_iou(predicted.detach(), target).squeeze(-1)
        matched[row, query, labels[found]] = 1.0
        class_terms = self._class_terms(scores, quality, matched, objects)

        terms = torch.stack((box_terms[:, 0], class_terms, box_terms[:, 1]), 1)
        terms = (terms / objects.clamp(min=1)[:, None]).view(layers, images, 3).sum(0)
        gains = self._stock.loss_gain
        return terms * terms.new_tensor([gains["giou"], gains["class"], gains["bbox"]])

    def _class_terms(
        self, scores: Tensor, quality: Tensor, matched: Tensor, objects: Tensor
    ) -> Tensor:
        """Varifocal loss of each row; (R, Q, C) scores, IoUs and matches, (R,) objects."""
        # Ultralytics takes the focal loss where nothing is to be found; that is another factor.
        background = torch.where(
            objects > 0, float(self._varifocal.alpha), 1.0 - float(self._focal.alpha)
        ).to(scores)
        unmatched = background[:, None, None] * scores.sigmoid().pow(self._varifocal.gamma)
        weight = unmatched * (1.0 - matched) + quality * matched
        entropy = F.binary_cross_entropy_with_logits(scores, quality, reduction="none")
        return (entropy * weight).sum((1, 2))


def _layers(predictions: Any) -> tuple[Tensor, Tensor]:
    """Boxes and scores of the encoder and of all decoder layers, at least in float32."""
    boxes, scores, first_boxes, first_scores, denoising = predictions
    if denoising is not None:
        raise ModelError(
            "the number of denoising queries depends on the fullest image of the batch",
            where="predictions",
            do="run the model on the images alone, without targets",
        )
    boxes = torch.cat((first_boxes[None], boxes))
    scores = torch.cat((first_scores[None], scores))
    precision = torch.promote_types(scores.dtype, torch.float32)
    return boxes.to(precision), scores.to(precision)


def _flat(
    matches: list[tuple[Tensor, Tensor]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Row, query and object of every match, each int64 (P,)."""
    row = torch.cat([torch.full_like(query, i) for i, (query, _) in enumerate(matches)])
    query, found = (torch.cat(parts) for parts in zip(*matches, strict=True))
    return cast(Any, tuple(part.to(device) for part in (row, query, found)))
