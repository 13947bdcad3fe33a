"""A small correct step, and mistakes to plant in it: one for each probe to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from discreet.checking import Subject, Unit
from discreet.clipping import ClippedSum, FlatClipping, PerExampleGradients
from discreet.gradients import make_engine
from discreet.noise import GaussianMechanism
from discreet.randomness import SecureSource
from discreet.step import private_step

UNITS = 4
BATCH = 16.0


class Net(nn.Module):
    """A convolution, a norm, a branch that no batch touches, and a linear layer."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = norm or nn.GroupNorm(2, 8)
        self.last = nn.Linear(8, 1)
        self.idle = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.conv(x)).relu().mean((2, 3))).squeeze(1)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(UNITS, 3, 8, 8, generator=generator),
        torch.randn(UNITS, generator=generator),
    )


def batch_of(units: Sequence[Unit]) -> tuple[Tensor, Tensor]:
    images, targets = data()
    numbers = [unit.number for unit in units]
    return images[numbers], targets[numbers]


def losses_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]) ** 2


def subject(model: nn.Module | None = None, **changes: Any) -> Subject:
    torch.manual_seed(0)
    model = model or Net()
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    engine = make_engine(changes.pop("engine", "discreet"), model, parameters)
    losses: Callable[..., Tensor] = changes.pop("losses", losses_of)
    mechanism = GaussianMechanism(noise_multiplier=1.0)
    made = Subject(
        model=model,
        parameters=parameters,
        batch_of=batch_of,
        losses_of=lambda batch: losses(model, batch),
        gradients_of=lambda batch: engine.per_example_gradients(lambda: losses(model, batch)),
        clipping_of=lambda bound: FlatClipping(max_grad_norm=bound),
        max_grad_norm=1.0,
        mechanism_of=lambda _: nullcontext(mechanism),
        noise_multiplier=1.0,
        source=SecureSource(),
        expected_batch_size=BATCH,
        optimizer=torch.optim.SGD(parameters.values(), lr=0.1),
        units=range(UNITS),
    )
    return replace(made, **changes)


# ---- one mistake for each probe ----


def left_out_of_the_declaration() -> Subject:
    made = subject()
    kept = {n: p for n, p in made.parameters.items() if n != "idle.weight"}
    engine = make_engine("discreet", made.model, kept)
    return replace(
        made,
        parameters=kept,
        gradients_of=lambda b: engine.per_example_gradients(lambda: losses_of(made.model, b)),
    )


def refused_layer() -> Subject:
    # Its statistics are not kept and its output is not used: nothing but the engine sees it.
    model = Net()
    model.spare = nn.BatchNorm2d(8, affine=False, track_running_stats=False)
    return subject(model)


class Counting(Net):
    """Keeps a running mean of what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
        return super().forward(x)


def padded_input() -> Subject:
    class Cropping(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[..., :8])

    def padded(units: Sequence[Unit]) -> tuple[Tensor, Tensor]:
        images, targets = batch_of(units)
        return nn.functional.pad(images, (0, max(unit.number for unit in units))), targets

    return subject(Cropping(), batch_of=padded)


def shared_loss_value() -> Subject:
    """A part of the loss depends on all targets, and on no parameter."""

    def losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return losses_of(model, batch) + batch[1].abs().sum()

    return subject(losses=losses)


class MixingBackward(torch.autograd.Function):
    """Passes everything on unchanged, and mixes gradients of units on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ARG004
        return grad / grad.norm()


class Mixer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return MixingBackward.apply(x)


class Wrapped:
    """Gradients with another word on their norms."""

    def __init__(self, inner: PerExampleGradients, told: Callable[[Tensor], Tensor]) -> None:
        self._inner, self._told = inner, told

    @property
    def squared_norms(self) -> dict[str, Tensor]:
        return {name: self._told(value) for name, value in self._inner.squared_norms.items()}

    def weighted_sum(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._inner.weighted_sum(weights)


def norms_in_half_precision() -> Subject:
    made = subject()
    return replace(
        made,
        gradients_of=lambda b: Wrapped(
            made.gradients_of(b), lambda n: n.sqrt().bfloat16().float() ** 2
        ),
    )


class LayerClipping(FlatClipping):
    """Clips every parameter by itself to C, and declares C."""

    def clip_and_sum(self, gradients: PerExampleGradients) -> ClippedSum:
        weights = {
            name: (self.max_grad_norm / value.sqrt().clamp_min(1e-30)).clamp(max=1)
            for name, value in gradients.squared_norms.items()
        }
        return ClippedSum(sums=gradients.weighted_sum(weights), sensitivity=self.sensitivity)


class SumClipping(FlatClipping):
    """Clips the sum of a part, not its units."""

    def clip_and_sum(self, gradients: PerExampleGradients) -> ClippedSum:
        any_norm = next(iter(gradients.squared_norms.values()))
        sums = gradients.weighted_sum(
            dict.fromkeys(gradients.squared_norms, torch.ones_like(any_norm))
        )
        norm = float(torch.cat([s.flatten() for s in sums.values()]).norm())
        factor = min(1.0, self.max_grad_norm * (1 - 2e-6) / max(norm, 1e-30))
        return ClippedSum(
            sums={name: value * factor for name, value in sums.items()},
            sensitivity=self.sensitivity,
        )


class Noise(GaussianMechanism):
    """Leaves a parameter without noise, or has another scale."""

    silent: tuple[str, ...] = ()
    factor: float = 1.0

    def privatise(self, clipped: ClippedSum, source: Any) -> dict[str, Tensor]:
        noised = super().privatise(clipped, source)
        return {
            name: value if name in self.silent else value + (noised[name] - value) * self.factor
            for name, value in clipped.sums.items()
        }


def noise(silent: tuple[str, ...] = (), factor: float = 1.0) -> Subject:
    kind = type("Planted", (Noise,), {"silent": silent, "factor": factor})
    return subject(mechanism_of=lambda _: nullcontext(kind(noise_multiplier=1.0)))


def repeated_noise() -> Subject:
    from discreet.randomness import InsecureSource

    class Replaying(GaussianMechanism):
        def privatise(self, clipped: ClippedSum, source: Any) -> dict[str, Tensor]:
            return super().privatise(clipped, InsecureSource(5))

    return subject(mechanism_of=lambda _: nullcontext(Replaying(noise_multiplier=1.0)))


def noise_for_each_part(parts: Any, **arguments: Any) -> Any:
    parts = list(parts)
    extra = max(len(parts) - 1, 0)
    inner = arguments["mechanism"]

    class Often:
        def privatise(self, clipped: ClippedSum, source: Any) -> dict[str, Tensor]:
            sums = inner.privatise(clipped, source)
            for _ in range(extra):
                sums = inner.privatise(replace(clipped, sums=sums), source)
            return sums

    return private_step(parts, **{**arguments, "mechanism": Often()})


def divided_by_the_drawn(parts: Any, **arguments: Any) -> Any:
    drawn = 0
    gradients_of = arguments["gradients_of"]
    kept = []
    for part in parts:
        found = gradients_of(part)
        drawn += len(next(iter(found.squared_norms.values())))
        kept.append(found)
    # An unbiased-looking mean: the noise keeps its scale, the sum is divided by the drawn.
    scale = arguments["expected_batch_size"] / drawn if drawn else 1.0

    class Mean:
        def privatise(self, clipped: ClippedSum, source: Any) -> dict[str, Tensor]:
            noised = arguments["mechanism"].privatise(clipped, source)
            return {n: v + (scale - 1) * clipped.sums[n] for n, v in noised.items()}

    mechanism = Mean() if drawn > 1 else arguments["mechanism"]
    return private_step(
        kept, **{**arguments, "gradients_of": lambda held: held, "mechanism": mechanism}
    )


def empty_steps_skipped(parts: Any, **arguments: Any) -> Any:
    kept = list(parts)
    if not kept:
        # The noise is added where it belongs, but the step does not run to its end.
        noised = arguments["mechanism"].privatise(
            ClippedSum(
                sums={n: torch.zeros_like(p) for n, p in arguments["parameters"].items()},
                sensitivity=1.0,
            ),
            arguments["source"],
        )
        for name, parameter in arguments["parameters"].items():
            parameter.grad = noised[name] / arguments["expected_batch_size"]
        for _ in range(2):
            arguments["optimizer"].step()
        return None
    return private_step(kept, **arguments)


PLANTS: Mapping[str, tuple[str, Callable[[], Subject], str]] = {
    "parameter left out": ("parameters", left_out_of_the_declaration, "idle.weight"),
    "layer that mixes, unused": ("engine", refused_layer, "spare"),
    "running buffer": ("state", lambda: subject(Counting()), "seen"),
    "input padded to the batch": ("shapes", padded_input, "input"),
    "loss value of the batch": ("losses", shared_loss_value, "the loss"),
    "gradients mixed on the way back": (
        "contributions",
        lambda: subject(Net(Mixer())),
        "norm (Mixer)",
    ),
    "norms in bf16": ("norms", norms_in_half_precision, ""),
    "clipped per layer": (
        "sensitivity",
        lambda: subject(clipping_of=lambda c: LayerClipping(max_grad_norm=c)),
        "clipping",
    ),
    "clipped after the sum": (
        "additivity",
        lambda: subject(clipping_of=lambda c: SumClipping(max_grad_norm=c)),
        "clipping",
    ),
    "one parameter without noise": ("noise", lambda: noise(silent=("idle.weight",)), "idle.weight"),
    "noise too small": ("noise", lambda: noise(factor=0.7), "mechanism"),
    "noise too large": ("noise", lambda: noise(factor=2**0.5), "mechanism"),
    "noise repeated": ("noise", repeated_noise, ""),
    "noise per micro-batch": ("once", lambda: subject(step=noise_for_each_part), "step"),
    "divided by the drawn": ("normaliser", lambda: subject(step=divided_by_the_drawn), "step"),
    "empty steps of another kind": (
        "empty draw",
        lambda: subject(step=empty_steps_skipped),
        "step",
    ),
}
