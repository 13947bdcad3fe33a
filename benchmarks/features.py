"""What it saves to keep the features of frozen layers: images anew, and images that are known.

    python -m benchmarks.features                       YOLOv8n, 160 px, 256 images a step
    python -m benchmarks.features --model yolov8n.pt --trainable head
    python -m benchmarks.features --json FILE           the rows, for machines

Both take part in every round, in the trainer's own parts, from the loader to the clipped sum, so
that a machine whose speed drifts slows both. Images are the demo's.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn
from ultralytics.utils import DEFAULT_CFG, DEFAULT_CFG_DICT

from benchmarks.machine import describe
from discreet.clipping import FlatClipping
from discreet.data import load_dataset
from discreet.demo.dataset import write_dataset
from discreet.demo.scenes import PRIVATE
from discreet.gradients import make_engine
from discreet.recipes import BEYOND_FLIPS
from discreet.step import sum_clipped
from discreet.yolo.dataset import ImageSettings, RecordDataset
from discreet.yolo.feature_cache import FeatureCache, features_of
from discreet.yolo.frozen import FrozenFront
from discreet.yolo.loading import MicroBatches
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.microbatch import automatic_size
from discreet.yolo.model import (
    attach_settings,
    build_model,
    fast_layout,
    open_source,
    set_norm,
    train_mode,
)
from discreet.yolo.parts import select_trainable

WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class Row:
    """Milliseconds of one image, medians over rounds; processor time counts all threads."""

    features: str
    micro_batch: int
    wall: float
    wall_min: float
    processor: float


class Stepper:
    """Clipped sums over the same images, again and again.

    Args:
        model: A detector, ready to train.
        images: The images.
        size: Images of a part.
        cache: Features that are known; None computes all.
    """

    def __init__(
        self, model: nn.Module, images: RecordDataset, *, size: int, cache: FeatureCache | None
    ) -> None:
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._engine = make_engine("discreet", model, self._parameters)
        self._loss, self._front, self._cache = PerImageLoss(model), FrozenFront(model), cache
        everyone = list(range(len(images)))
        self._parts = MicroBatches(
            images,
            iter(lambda: everyone, None),
            first_step=1,
            micro_batch_size=size,
            cache=cache,
        )

    def __call__(self) -> None:
        """One step."""
        sum_clipped(
            self._parts.next_step(),
            parameters=self._parameters,
            gradients_of=self._gradients_of,
            clipping=FlatClipping(max_grad_norm=1.0),
        )

    def _gradients_of(self, part: dict[str, Any]) -> Any:
        if "img" in part:
            part["img"] = part["img"].float() / 255
        features = features_of(part, self._front, self._cache)
        return self._engine.per_example_gradients(
            lambda: self._loss(self._front.rest(features), part).sum(1)
        )


def measure(steps: Sequence[tuple[str, int, Stepper]], *, rounds: int, images: int) -> list[Row]:
    """Time every contestant in every round."""
    wall: list[list[float]] = [[] for _ in steps]
    processor: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + WARM_UP):
        for i, (_, _, step) in enumerate(steps):
            began, own = time.perf_counter(), time.process_time()
            step()
            if number >= WARM_UP:
                wall[i].append((time.perf_counter() - began) * 1000 / images)
                processor[i].append((time.process_time() - own) * 1000 / images)
    return [
        Row(
            features=name,
            micro_batch=size,
            wall=statistics.median(wall[i]),
            wall_min=min(wall[i]),
            processor=statistics.median(processor[i]),
        )
        for i, (name, size, _) in enumerate(steps)
    ]


def _detector(name: str, names: Sequence[str], trainable: str, imgsz: int) -> nn.Module:
    model = build_model(open_source(name), names=names, imgsz=imgsz)
    attach_settings(model, DEFAULT_CFG_DICT)
    set_norm(model, "frozen")
    train_mode(model)
    fast_layout(model)
    select_trainable(model, trainable, imgsz=imgsz)
    return model


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="yolov8n.yaml", help="architecture or weights")
    parser.add_argument("--trainable", default="class_film+classes", help="as of the recipe")
    parser.add_argument("--imgsz", type=int, default=160, help="side of the images, pixels")
    parser.add_argument("--images", type=int, default=256, help="images in a step")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file")
    arguments = parser.parse_args(argv)
    logging.getLogger("ultralytics").setLevel(logging.WARNING)
    count, imgsz = arguments.images, arguments.imgsz
    with tempfile.TemporaryDirectory() as folder:
        scenes = write_dataset(Path(folder), style=PRIVATE, train=count, val=1, size=imgsz, seed=1)
        data = load_dataset(scenes)
        model = _detector(arguments.model, data.names, arguments.trainable, imgsz)
        parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        size = automatic_size(model, parameters, imgsz=imgsz, device=torch.device("cpu"))
        hyp = SimpleNamespace(**{**vars(DEFAULT_CFG), **dict.fromkeys(BEYOND_FLIPS, 0.0)})
        # Without flips, so that all is known from the second step on.
        hyp.mosaic = hyp.fliplr = 0.0

        def contestant(name: str, size: int, cache: FeatureCache | None) -> Any:
            described = {"names": dict(enumerate(data.names)), "nc": data.nc, "channels": 3}
            settings = ImageSettings(data=described, imgsz=imgsz, hyp=cast(Any, hyp), augment=True)
            images = RecordDataset(data.train, settings)
            return name, size, Stepper(model, images, size=size, cache=cache)

        rows = measure(
            [
                contestant("anew", 16, None),
                contestant("anew", size, None),
                contestant("known", size, FeatureCache(limit=4 << 30, entries=count)),
            ],
            rounds=arguments.rounds,
            images=count,
        )
    machine = describe(torch.device("cpu"))
    print("  ".join(f"{name} {value}" for name, value in machine.items()))
    print("features  micro-batch  ms an image  minimum  processor ms  ratio  of processor time")
    for row in rows:
        print(
            f"{row.features:8}  {row.micro_batch:11}  {row.wall:11.2f}  {row.wall_min:7.2f}  "
            f"{row.processor:12.2f}  {row.wall / rows[0].wall:5.2f}  "
            f"{row.processor / rows[0].processor:17.2f}"
        )
    if arguments.json:
        content = {"machine": machine, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
