"""The ways to compute one training step that are compared.

Every contestant is a function from a `Case` to a step without arguments. Private ones clip per
image and sum; noise, sampling and accounting are measured apart, since they are paid once per
logical step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT

from discreet.clipping import FlatClipping
from discreet.gradients import make_engine
from discreet.yolo.loss import PerImageLoss
from discreet.yolo.model import (
    attach_settings,
    build_model,
    fast_layout,
    open_source,
    train_mode,
)
from discreet.yolo.parts import select_trainable

Step = Callable[[], None]
_CLASSES = 3
_BOXES = 8
_MAX_GRAD_NORM = 1.0
_RATE = 1e-6  # the weights stay where they are, whoever runs first


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is stepped.

    Attributes:
        model: Architecture (`yolov8n.yaml`) or weights.
        imgsz: Side of the images in pixels.
        batch: Images of a step.
        device: Where it runs.
        bf16: Whether the forward pass runs in bfloat16.
    """

    model: str
    imgsz: int
    batch: int
    device: str
    bf16: bool = False

    def images(self) -> dict[str, Tensor]:
        """A batch of random images with boxes, the same for every contestant."""
        generator = torch.Generator().manual_seed(0)
        objects = self.batch * _BOXES
        batch = {
            "img": torch.rand(self.batch, 3, self.imgsz, self.imgsz, generator=generator),
            "batch_idx": torch.arange(self.batch).repeat_interleave(_BOXES).float(),
            "cls": torch.randint(0, _CLASSES, (objects, 1), generator=generator).float(),
            "bboxes": torch.cat(
                [
                    torch.rand(objects, 2, generator=generator) * 0.6 + 0.2,
                    torch.rand(objects, 2, generator=generator) * 0.3 + 0.05,
                ],
                1,
            ),
        }
        return {name: value.to(self.device) for name, value in batch.items()}

    def detector(self) -> DetectionModel:
        """The detector, in stock training mode."""
        torch.manual_seed(0)
        names = [f"class {i}" for i in range(_CLASSES)]
        source = open_source(self.model)
        pretrained = Path(self.model).suffix == ".pt"
        model = build_model(source, names=names, imgsz=self.imgsz, pretrained=pretrained)
        attach_settings(model, DEFAULT_CFG_DICT)
        return model.to(self.device).train()

    def autocast(self) -> Any:
        """The precision of the forward pass."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)


def _optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=_RATE, momentum=0.9, nesterov=True)


def stock(case: Case) -> Step:
    """Ultralytics: BatchNorm in training mode, its own loss, backward, clipping, optimizer."""
    model, batch = case.detector(), case.images()
    parameters = [p for n, p in model.named_parameters() if ".dfl." not in n]
    optimizer = _optimizer(parameters)

    def step() -> None:
        with case.autocast():
            loss = model(batch)[0].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, max_norm=10.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def prepared(case: Case, trainable: str) -> tuple[nn.Module, dict[str, nn.Parameter], Any]:
    model = case.detector()
    parameters = select_trainable(model, trainable)
    train_mode(model)
    fast_layout(model)
    return model, parameters, PerImageLoss(model)


def per_image_loss(case: Case) -> Step:
    """Not private: frozen BatchNorm and the per-image loss, ordinary gradients."""
    model, parameters, loss = prepared(case, "all")
    batch, optimizer = case.images(), _optimizer(parameters.values())

    def step() -> None:
        with case.autocast():
            predictions = model(batch["img"])
        loss(predictions, batch).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def engine(name: str, trainable: str) -> Callable[[Case], Step]:
    """One of the project's engines: per-image gradients, clipped, summed, applied."""

    def build(case: Case) -> Step:
        model, parameters, loss = prepared(case, trainable)
        batch, optimizer = case.images(), _optimizer(parameters.values())
        running = make_engine(name, model, parameters)
        clipping = FlatClipping(max_grad_norm=_MAX_GRAD_NORM)

        def losses() -> Tensor:
            with case.autocast():
                predictions = model(batch["img"])
            return loss(predictions, batch).sum(1)

        def step() -> None:
            sums = clipping.clip_and_sum(running.per_example_gradients(losses)).sums
            for key, parameter in parameters.items():
                parameter.grad = sums[key] / case.batch
            optimizer.step()
            optimizer.zero_grad()

        return step

    return build


def opacus_hooks(case: Case) -> Step:
    """Opacus as its users run it: `GradSampleModule`, BatchNorm replaced by GroupNorm."""
    from opacus import GradSampleModule
    from opacus.validators import ModuleValidator

    model = case.detector()
    _keep_off_in_place(model)
    model = ModuleValidator.fix(model).to(case.device).train()
    select_trainable(model, "all")
    loss, batch = PerImageLoss(model), case.images()
    wrapped = GradSampleModule(model, loss_reduction="sum")
    parameters = [p for p in wrapped.parameters() if p.requires_grad]
    optimizer = _optimizer(parameters)

    def step() -> None:
        with case.autocast():
            predictions = wrapped(batch["img"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss(predictions, batch).sum().backward()
        samples = [p.grad_sample for p in parameters]
        norms = torch.stack([s.flatten(1).norm(dim=1) for s in samples]).norm(dim=0)
        factors = (_MAX_GRAD_NORM / (norms + 1e-6)).clamp(max=1.0)
        for parameter, sample in zip(parameters, samples, strict=True):
            parameter.grad = torch.einsum("b,b...->...", factors, sample) / case.batch
            parameter.grad_sample = None
        optimizer.step()
        optimizer.zero_grad()

    return step


def opacus_ghost(case: Case) -> Step:
    """Opacus' ghost clipping: one pass for the norms, a second for the weighted sum."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.validators import ModuleValidator

    model = case.detector()
    _keep_off_in_place(model)
    model = ModuleValidator.fix(model).to(case.device).train()
    select_trainable(model, "all")
    loss, batch = PerImageLoss(model), case.images()
    wrapped = GradSampleModuleFastGradientClipping(
        model, loss_reduction="sum", max_grad_norm=_MAX_GRAD_NORM, use_ghost_clipping=True
    )
    parameters = [p for p in wrapped.parameters() if p.requires_grad]
    optimizer = _optimizer(parameters)

    def step() -> None:
        with case.autocast():
            predictions = wrapped(batch["img"])
        losses = loss(predictions, batch).sum(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            losses.sum().backward(retain_graph=True)
            factors = wrapped.get_clipping_coef()
            optimizer.zero_grad()
            wrapped.disable_hooks()
            (losses * factors.detach()).sum().backward()
            wrapped.enable_hooks()
        optimizer.step()
        optimizer.zero_grad()

    return step


def torch_func(case: Case) -> Step:
    """`torch.func`: the gradient of one image, mapped over the batch."""
    model, parameters, loss = prepared(case, "all")
    batch, optimizer = case.images(), _optimizer(parameters.values())
    rest = dict(model.named_buffers()) | {
        n: p.detach() for n, p in model.named_parameters() if n not in parameters
    }
    detached = {name: p.detach() for name, p in parameters.items()}

    def predictions(values: dict[str, Tensor], image: Tensor) -> dict[str, Tensor]:
        out = torch.func.functional_call(model, {**rest, **values}, (image[None],))
        return {"boxes": out["boxes"][0], "scores": out["scores"][0]}

    def pulled(image: Tensor, boxes: Tensor, scores: Tensor) -> dict[str, Tensor]:
        _, pull = torch.func.vjp(lambda values: predictions(values, image), detached)
        return pull({"boxes": boxes, "scores": scores})[0]

    per_image = torch.func.vmap(pulled)

    def step() -> None:
        # The assignment of targets is not mappable: its gradient is taken at the outputs.
        with torch.no_grad():
            out = model(batch["img"])
        leaves = {k: out[k].detach().requires_grad_() for k in ("boxes", "scores")}
        total = loss({**leaves, "feats": out["feats"]}, batch).sum()
        boxes, scores = torch.autograd.grad(total, [leaves["boxes"], leaves["scores"]])
        samples = per_image(batch["img"], boxes, scores)
        norms = torch.stack([s.flatten(1).norm(dim=1) for s in samples.values()]).norm(dim=0)
        factors = (_MAX_GRAD_NORM / (norms + 1e-6)).clamp(max=1.0)
        for name, parameter in parameters.items():
            parameter.grad = torch.einsum("b,b...->...", factors, samples[name]) / case.batch
        optimizer.step()
        optimizer.zero_grad()

    return step


def _keep_off_in_place(model: nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False


# Name, trainable, and how to build its step; the first is what the others are compared with.
CONTESTANTS: tuple[tuple[str, str, Callable[[Case], Step]], ...] = (
    ("stock", "all", stock),
    ("per-image loss", "all", per_image_loss),
    ("discreet", "all", engine("discreet", "all")),
    ("discreet", "film+head", engine("discreet", "film+head")),
    ("opacus hooks", "all", opacus_hooks),
    ("opacus ghost", "all", opacus_ghost),
    ("torch.func", "all", torch_func),
)
ALL = tuple(name for name, _, _ in CONTESTANTS)
OWN = ("stock", "per-image loss", "discreet")
QUICKEST = ("stock", "discreet")
