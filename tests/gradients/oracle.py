"""Compare engines with one float64 pass per image."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from discreet.gradients import LayerwiseEngine, ReferenceEngine, make_engine, tape
from discreet.gradients.records import RecordedGradients, as_rows

Loss = Callable[[nn.Module, Tensor], Tensor]  # model and images to (B,)
TOLERANCE = 1e-5
ROUNDINGS = 2e-6


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def per_image_loss(model: nn.Module, x: Tensor) -> Tensor:
    """A loss whose gradient differs at every output and, being positive, cannot cancel there."""
    flat = model(x).flatten(1)
    slope = torch.linspace(1, 2, flat.shape[1], dtype=flat.dtype)
    return (flat * slope + F.softplus(flat)).sum(1)


def one_by_one(model: nn.Module, x: Tensor, loss: Loss = per_image_loss) -> RecordedGradients:
    """The oracle: one pass per image, alone, in float64."""
    precise = copy.deepcopy(model).double()
    inputs = x.double() if x.is_floating_point() else x
    engine = ReferenceEngine(precise, trainable(precise))
    return engine.single_image_gradients(
        lambda image: loss(precise, inputs[image : image + 1])[0], len(x)
    )


def assert_same(
    found: Any,
    expected: RecordedGradients,
    parameters: Mapping[str, Tensor],
    *,
    images: int,
    tolerance: float = TOLERANCE,
) -> None:
    """Per-image gradients, norms and a weighted sum agree, relative to the largest gradient.

    A gradient that is zero but for rounding, as of a bias before a normalisation, may be off by a
    few roundings of the whole gradient.
    """
    total = torch.stack(list(expected.squared_norms.values())).sum(0).max().sqrt()
    weights = torch.rand(images) + 0.1
    sums = found.weighted_sum(dict.fromkeys(parameters, weights))
    expected_sums = expected.weighted_sum(dict.fromkeys(parameters, weights))
    assert list(found.squared_norms) == list(parameters)
    for name in parameters:
        rows, expected_rows = found.per_example(name), expected.per_example(name)
        assert rows.shape == expected_rows.shape == (images, *parameters[name].shape), name
        scale = as_rows(expected_rows).norm(dim=1).max() + ROUNDINGS * total / tolerance
        error = as_rows(rows - expected_rows).norm(dim=1).max()
        assert error <= tolerance * scale, f"{name}: {error / scale:.1e}"
        norms = found.squared_norms[name].sqrt()
        assert norms.dtype == sums[name].dtype == torch.float32
        error = (norms - expected.squared_norms[name].sqrt()).abs().max()
        assert error <= tolerance * scale, f"norm of {name}: {error / scale:.1e}"
        error = (sums[name] - expected_sums[name]).norm()
        assert error <= tolerance * scale * images, f"sum of {name}: {error / scale:.1e}"


def check_engines(
    model: nn.Module,
    x: Tensor,
    *,
    engines: Sequence[str] = ("discreet", "opacus"),
    loss: Loss = per_image_loss,
    tolerance: float = TOLERANCE,
) -> None:
    """Engines agree with the oracle.

    The project's own is run twice, since the second pass holds what the first computes again,
    and once more with every parameter treated as large.
    """
    parameters = trainable(model)
    expected = one_by_one(model, x, loss)
    for name in engines:
        own = name == LayerwiseEngine.name
        for small in (tape.SMALL, 0) if own else (tape.SMALL,):
            engine = make_engine(name, model, parameters)
            for _ in range(2 if own else 1):
                with mock.patch.object(tape, "SMALL", small):
                    found = engine.per_example_gradients(lambda: loss(model, x))
                assert_same(found, expected, parameters, images=len(x), tolerance=tolerance)


class Relayout(nn.Module):
    """Same numbers, another memory layout."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        if self.layout == "transposed":
            return x.transpose(-1, -2)
        if self.layout == "sliced":
            return torch.cat((x, x), 1)[:, : x.shape[1]]
        if self.layout == "flipped batch":
            return torch.stack(tuple(x), x.dim() - 1).movedim(-1, 0)
        if self.layout == "channels_last" and x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x


LAYOUTS = ("contiguous", "channels_last", "transposed", "sliced", "flipped batch")
