"""A second, independent engine: Opacus' hooks and registered grad samplers.

Opacus is used without wrapping the model, and made exact where its hooks are silently wrong:

- it looks at memory layout, so inputs and gradients are made contiguous;
- its convolution sampler ignores `padding_mode`: such layers go through its functorch path;
- its embedding sampler ignores `padding_idx`: those rows are removed;
- its hooks skip layers in eval mode, and it knows no frozen BatchNorm: both added here;
- a full backward hook forbids in-place activations: made out-of-place meanwhile.

Whatever is left is caught by comparing with autograd's own gradient of the sum of losses.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleHooks
from opacus.grad_sample.gsm_base import OPACUS_PARAM_MONKEYPATCH_ATTRS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.utils.hooks import RemovableHandle

from discreet.errors import UnsupportedLayerError
from discreet.gradients.isolation import (
    Losses,
    check_losses,
    check_parameters,
    check_units,
    isolated,
    out_of_place,
    refuse_mixing,
    sound_norms,
)
from discreet.gradients.records import RecordedGradients, Units, as_rows
from discreet.gradients.tape import as_float

# Largest difference to autograd's gradient, relative to the sum of the images' norms.
TOLERANCE = 1e-3
TOLERANCE_TF32 = 1e-2  # where cuDNN rounds factors to ten bits
TOLERANCE_HALF = 5e-2  # where autograd's own gradient is in half precision
# Added to it, relative to the gradients of all parameters together.
ROUNDING = 1e-5


class OpacusEngine:
    """Per-example gradients by Opacus.

    Args:
        model: The model that `losses` runs; changed only while a pass runs.
        parameters: Dotted name to parameter.

    Raises:
        ModelError: A parameter is not the model's.
    """

    name = "opacus"

    def __init__(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        check_parameters(model, parameters)
        self._model = model
        self._parameters = dict(parameters)

    def per_example_gradients(
        self, losses: Losses, units: Units | None = None
    ) -> RecordedGradients:
        """Run `losses` and one backward pass; see `LayerwiseEngine`.

        Raises:
            ModelError: A layer mixes images, or the losses are not per image.
            UnsupportedLayerError: Opacus has no exact gradients for a layer or parameter.
        """
        refuse_mixing(self._model)
        with (
            isolated(self._model.parameters(), self._parameters),
            sound_norms(self._model),
            _hooked(self._model) as hooks,
        ):
            values = losses()
            check_losses(values)
            check_units(units, len(values))
            if len(values) and values.requires_grad:
                inputs = list(self._parameters.values())
                with (
                    warnings.catch_warnings(),
                    torch.autocast(values.device.type, enabled=False),
                ):
                    warnings.filterwarnings("ignore", message="Full backward hook is firing")
                    values.sum().backward(inputs=inputs)
            samples = {
                name: self._sample(name, parameter, len(values))
                for name, parameter in self._parameters.items()
                if parameter.grad is not None or _grad_sample(parameter) is not None
            }
            self._check_sums(samples, _tolerance(values, half=hooks.half))
        return RecordedGradients.of(self._parameters, samples, len(values), units)

    def _sample(self, name: str, parameter: nn.Parameter, images: int) -> Tensor:
        sample = _grad_sample(parameter)
        if sample is None or len(sample) != images:
            raise UnsupportedLayerError(
                "Opacus found no gradient per image: the parameter is used outside its layer's "
                "forward pass, or a row is not an image",
                where=name,
                do="freeze it, or use engine=discreet",
            )
        return sample

    def _check_sums(self, samples: Mapping[str, Tensor], tolerance: float) -> None:
        norms = {name: as_rows(sample).norm(dim=1).sum() for name, sample in samples.items()}
        # Some gradients cancel to rounding, as of a bias before a normalisation: their own size
        # is no measure.
        whole = sum(norm.square() for norm in norms.values())
        rounding = ROUNDING * torch.as_tensor(whole).sqrt()
        for name, sample in samples.items():
            expected = self._parameters[name].grad
            if expected is None or not bool(torch.isfinite(norms[name])):
                continue
            if bool((sample.sum(0) - expected).norm() > tolerance * norms[name] + rounding):
                raise UnsupportedLayerError(
                    "the sum of Opacus' gradients per image is not the gradient of the sum",
                    where=name,
                    do="use engine=discreet",
                )


def _grad_sample(parameter: nn.Parameter) -> Tensor | None:
    # A layer that ran but did not reach the loss leaves its sum unpromoted.
    found = getattr(parameter, "grad_sample", None)
    if found is None:
        found = getattr(parameter, "_current_grad_sample", None)
    return cast(Tensor | None, found)


def _frozen_batch_norm(
    layer: _BatchNorm, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Grad sampler of BatchNorm in eval mode, in Opacus' form."""
    normalised = F.batch_norm(
        activations[0].to(backprops.dtype), layer.running_mean, layer.running_var, eps=layer.eps
    )
    samples: dict[nn.Parameter, Tensor] = {}
    if layer.weight.requires_grad:
        samples[layer.weight] = torch.einsum("ni...->ni", normalised * backprops)
    if layer.bias.requires_grad:
        samples[layer.bias] = torch.einsum("ni...->ni", backprops)
    return samples


class _NoSampler:
    """Stands for a layer whose registered sampler is not exact."""


class _Hooks(GradSampleHooks):
    """Opacus' hooks, exact where they were not."""

    half = False  # whether half precision was met

    GRAD_SAMPLERS: ClassVar[dict[Any, Any]] = GradSampleHooks.GRAD_SAMPLERS | {
        nn.BatchNorm1d: _frozen_batch_norm,
        nn.BatchNorm2d: _frozen_batch_norm,
        nn.BatchNorm3d: _frozen_batch_norm,
    }

    def _get_module_type(self, module: nn.Module) -> Any:
        if getattr(module, "padding_mode", "zeros") != "zeros":
            return _NoSampler
        return type(module)

    def capture_activations_hook(
        self, module: nn.Module, forward_input: Any, _forward_output: Any
    ) -> None:
        if not self.hooks_enabled or not torch.is_grad_enabled():
            return
        activations = getattr(module, "activations", [])
        activations.append([tensor.detach().contiguous() for tensor in forward_input])
        module.activations = activations  # pyright: ignore[reportArgumentType]
        for parameter in _trainable(module):
            parameter._forward_counter += 1  # pyright: ignore[reportAttributeAccessIssue]

    def rearrange_grad_samples(
        self, *, module: nn.Module, backprops: Tensor, loss_reduction: str, batch_first: bool
    ) -> Any:
        activations, backprops = super().rearrange_grad_samples(
            module=module,
            backprops=backprops,
            loss_reduction=loss_reduction,
            batch_first=batch_first,
        )
        self.half = self.half or backprops.dtype != as_float(backprops).dtype
        # Half precisions would reach norms and sums.
        activations = [as_float(t) if t.is_floating_point() else t for t in activations]
        backprops = as_float(backprops).contiguous()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            padding = activations[0] == module.padding_idx
            backprops = backprops.masked_fill(padding.unsqueeze(-1), 0)
        return activations, backprops


def _trainable(module: nn.Module) -> Iterator[nn.Parameter]:
    return (parameter for parameter in module.parameters() if parameter.requires_grad)


@contextmanager
def _hooked(model: nn.Module) -> Generator[_Hooks, None, None]:
    """Opacus' hooks on the model, and nothing of them afterwards."""
    names = {module: name for name, module in model.named_modules()}
    before = {module: set(vars(module)) for module in names}
    kinds = {module: vars(module)["_is_full_backward_hook"] for module in names}
    in_place = [m for m in names if getattr(m, "inplace", False) is True]
    handles: list[RemovableHandle] = []
    try:
        with out_of_place(in_place):
            hooks = _make(model)
            handles = [
                module.register_forward_pre_hook(_single_input(names[module]), with_kwargs=True)
                for module in hooks.iterate_submodules(model)
            ]
            yield hooks
    finally:
        for handle in handles:
            handle.remove()
        # Not Opacus' own cleanup, which needs hooks that were made without error.
        for handle in vars(model).get("autograd_grad_sample_hooks", []):
            handle.remove()
        for parameter in model.parameters():
            for attribute in OPACUS_PARAM_MONKEYPATCH_ATTRS:
                vars(parameter).pop(attribute, None)
        for module, attributes in before.items():
            for attribute in set(vars(module)) - attributes:
                delattr(module, attribute)
            vars(module)["_is_full_backward_hook"] = kinds[module]


def _make(model: nn.Module) -> _Hooks:
    try:
        return _Hooks(model, batch_first=True, loss_reduction="sum", strict=False)
    except NotImplementedError as error:
        raise UnsupportedLayerError(
            f"Opacus refuses a layer: {error}", do="use engine=discreet"
        ) from error


def _single_input(name: str) -> Any:
    """Opacus recomputes layers from their first input alone: refuse any other call.

    The input is made contiguous: backward hooks give a single channels_last image the strides of
    which `isolation.sound_norm` tells.
    """

    def check(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs or len(args) != 1 or not isinstance(args[0], Tensor):
            raise UnsupportedLayerError(
                "Opacus knows only layers called with one tensor",
                where=name,
                do="use engine=discreet",
            )
        return (args[0].contiguous(),), kwargs

    return check


def _tolerance(values: Tensor, *, half: bool) -> float:
    if half:
        return TOLERANCE_HALF
    on_gpu = values.device.type == "cuda"
    return TOLERANCE_TF32 if on_gpu and torch.backends.cudnn.allow_tf32 else TOLERANCE
