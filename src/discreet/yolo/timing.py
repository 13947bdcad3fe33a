"""What a private step takes on this machine: the real engine on blank images, for some seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from ultralytics.utils import DEFAULT_CFG_DICT

from discreet.clipping import ClippedSum, FlatClipping
from discreet.gradients import make_engine
from discreet.noise import GaussianMechanism
from discreet.planning.cost import StepTime
from discreet.randomness import make_source
from discreet.recipes import (
    AUTO_MOMENTUM,
    AUTO_OPTIMIZER,
    DEFAULT_TRAINABLE,
    automatic_rate,
    whole_cells,
)
from discreet.step import sum_clipped
from discreet.yolo.batches import Batch, joined
from discreet.yolo.frozen import FrozenFront
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.microbatch import automatic_size
from discreet.yolo.model import (
    attach_settings,
    build_model,
    fast_layout,
    is_architecture,
    known_task,
    open_source,
    set_norm,
    train_mode,
)
from discreet.yolo.optimizer import build_optimizer
from discreet.yolo.parts import make_parts, select_trainable
from discreet.yolo.precision import in_single_precision, is_fast_in_bfloat16
from discreet.yolo.stand_ins import StandIns
from discreet.yolo.zoom import enlarging

USUAL_MODEL = "yolov8n.yaml"
_OBJECTS = 5  # in each blank image, so that the loss has its usual work
# What a CPU takes for one image hardly depends on how many it takes at once, once there are some.
_PIXELS_CPU = 16 * 160**2
_WARM_UP = 2  # passes in which the engine compiles and chooses its methods
_MOST_PASSES = 12
_EVEN = 8  # images of a part in bfloat16, where all parts are alike and steps small
_SECONDS, _SECONDS_OF_FRONT, _SECONDS_OF_UPDATE = 3.0, 0.5, 0.5


def measure_step(
    model: str | None,
    imgsz: int,
    trainable: str | None,
    zoom: int = 1,
    *,
    bfloat16: bool | None = None,
    device: torch.device | None = None,
) -> StepTime:
    """Measure a model's private step.

    Args:
        model: Weights, or the name of an architecture; None for YOLOv8n's architecture.
        imgsz: Side of the images in pixels; rounded up to whole cells, as in training.
        trainable: Parts that train; None for the default.
        zoom: How many times the model enlarges the sides of its images.
        bfloat16: Whether the model computes in bfloat16; None where the CPU is faster so.
        device: Where; if not given, where training would be.

    Raises:
        ModelError: If the model cannot be opened.
        ConfigurationError: If nothing is left to train.
    """
    device = device or usual_device()
    side = whole_cells(imgsz)
    with torch.random.fork_rng():  # what the caller draws next does not depend on a plan
        half = is_fast_in_bfloat16(device) if bfloat16 is None else bfloat16
        return _measured(model, side, trainable or DEFAULT_TRAINABLE, zoom, half, device)


def usual_device() -> torch.device:
    """Where training would be: on a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _measured(
    model: str | None, side: int, chosen: str, zoom: int, half: bool, device: torch.device
) -> StepTime:
    detector, parameters = _ready(model, side, chosen, zoom, device)
    images = automatic_size(detector, parameters, imgsz=side, device=device)
    if device.type == "cpu":
        images = min(images, max(1, _PIXELS_CPU // (side * zoom) ** 2))
    if half:
        images = min(images, _EVEN)
    loss, front = PerImageLoss(detector), FrozenFront(detector)
    engine = make_engine("discreet", detector, parameters)
    computing = partial(torch.autocast, device.type, torch.bfloat16, enabled=half)

    def losses_of(part: dict[str, Any]) -> Tensor:
        with computing():
            predicted = front.rest(part["features"])
        return loss(in_single_precision(predicted), part).sum(1)

    def gradients_of(part: dict[str, Any]) -> Any:
        return engine.per_example_gradients(partial(losses_of, part))

    def clip(part: dict[str, Any]) -> ClippedSum:
        return sum_clipped(
            [part],
            parameters=parameters,
            gradients_of=gradients_of,
            clipping=FlatClipping(max_grad_norm=1.0),
        )

    labelled = _labelled(detector, side)

    def known(images: int) -> dict[str, Any]:
        part = _blank(images, labelled, device)
        with computing():
            return part | {"features": front(part["img"])}

    began = time.perf_counter()
    clip(known(1))  # compiles
    if time.perf_counter() - began > _SECONDS / 8:  # a slow machine: no time for larger parts
        images = 1
    part = known(images)
    per_part, clipped = _fastest(partial(clip, part), device, seconds=_SECONDS)
    per_new = 0.0
    if front.layers:
        with computing():
            run = partial(front, part["img"])
            per_new, _ = _fastest(run, device, seconds=_SECONDS_OF_FRONT)
    update = partial(_update, clipped, parameters, chosen)
    update()  # imports what optimizers need
    per_step, _ = _fastest(update, device, seconds=_SECONDS_OF_UPDATE)
    return StepTime(
        model=Path(model or USUAL_MODEL).stem,
        imgsz=side,
        device="GPU" if device.type == "cuda" else "CPU",
        seconds_per_image=per_part / images,
        seconds_per_step=per_step,
        parameters=sum(parameter.numel() for parameter in parameters.values()),
        seconds_per_new_image=per_new / images,
    )


def _ready(
    model: str | None, side: int, trainable: str, zoom: int, device: torch.device
) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """A detector as the trainer makes it, and what trains in it."""
    source: Any = enlarging(open_source(model or USUAL_MODEL), zoom)
    detector = build_model(source, names=list(source.names.values()), imgsz=side)
    attach_settings(detector, DEFAULT_CFG_DICT)
    from_scratch = model is not None and is_architecture(model)
    set_norm(detector, "group" if from_scratch else "frozen")
    detector.to(device)
    train_mode(detector)
    make_parts(detector, trainable, imgsz=side)
    fast_layout(detector)
    return detector, select_trainable(detector, trainable, imgsz=side)


def _labelled(detector: nn.Module, side: int) -> StandIns:
    """Makes the labels that the model's task asks for."""
    head = cast(Any, detector).model[-1]
    return StandIns(
        task=known_task(detector),
        size=side,
        classes=len(cast(Any, detector).names),
        kpt_shape=getattr(head, "kpt_shape", None),
    )


def _blank(images: int, labelled: StandIns, device: torch.device) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.zeros(1, 3, labelled.size, labelled.size)
    one = {"img": pixels, **labelled.labels(_OBJECTS, generator)}
    return {name: value.to(device) for name, value in joined([one] * images).items()}


def _update(clipped: ClippedSum, parameters: dict[str, nn.Parameter], trainable: str) -> None:
    """Noise and update of a throw-away model."""
    optimizer = build_optimizer(
        AUTO_OPTIMIZER,
        parameters,
        lr=automatic_rate(trainable),
        momentum=AUTO_MOMENTUM,
        weight_decay=0.0,
    )
    noised = GaussianMechanism(noise_multiplier=1.0).privatise(clipped, make_source())
    for name, parameter in parameters.items():
        parameter.grad = noised[name].to(parameter.dtype)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _fastest(work: Callable[[], Any], device: torch.device, *, seconds: float) -> tuple[float, Any]:
    """Seconds of the fastest pass that is warm, or of the fastest at all if time runs out."""
    began = time.perf_counter()
    cold, warm, result = math.inf, math.inf, None
    for number in range(_MOST_PASSES):
        start = time.perf_counter()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        if number < _WARM_UP:
            cold = min(cold, now - start)
        else:
            warm = min(warm, now - start)
        if now - began + min(cold, warm) > seconds:
            break
    return min(cold, warm) if math.isinf(warm) else warm, result
