"""Leave the model as it was found, and refuse models whose layers mix images."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.instancenorm import _InstanceNorm  # pyright: ignore[reportPrivateUsage]

from discreet.errors import ModelError
from discreet.gradients.records import Units

Losses = Callable[[], Tensor]


def check_parameters(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse names that are not this model's parameters, each under one name.

    Raises:
        ModelError: A name is unknown, or belongs to another tensor, or two are of one tensor.
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    names: dict[int, str] = {}
    for name, parameter in parameters.items():
        if own.get(name) is not parameter:
            raise ModelError(
                "not a parameter of this model",
                where=name,
                do="take names and parameters from model.named_parameters()",
            )
        first = names.setdefault(id(parameter), name)
        if first != name:
            raise ModelError(
                f"the same tensor as {first}",
                where=name,
                do="name it once, as model.named_parameters() does",
            )


class Watched:
    """Notices when modules or parameters of a model are replaced.

    Args:
        model: The model.
        parameters: Dotted name to parameter.
    """

    def __init__(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        self._model, self._parameters = model, parameters
        self._modules: tuple[nn.Module, ...] = ()
        self._owners: list[tuple[dict[str, Any], str, str, nn.Parameter]] = []

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The model's modules when it was last looked at."""
        return self._modules

    def changed(self) -> bool:
        """Whether the model has other modules than the last time.

        Raises:
            ModelError: A parameter is the model's no more.
        """
        modules = tuple(self._model.modules())
        other = modules != self._modules
        if other:
            self._modules = modules
            self._owners = list(self._find())
        for own, key, name, parameter in self._owners:
            if own.get(key) is not parameter:
                raise _replaced(name)
        return other

    def _find(self) -> Iterator[tuple[dict[str, Any], str, str, nn.Parameter]]:
        modules = dict(self._model.named_modules(remove_duplicate=False))
        for name, parameter in self._parameters.items():
            path, _, key = name.rpartition(".")
            if path not in modules:
                raise _replaced(name)
            own = vars(modules[path]).get("_parameters")
            if isinstance(own, dict):  # TorchScript keeps its own, which nobody can replace
                yield own, key, name, parameter


def _replaced(name: str) -> ModelError:
    return ModelError(
        "no parameter of the model any more: it, or its layer, was replaced",
        where=name,
        do="make a new engine from the model's present parameters",
    )


def refuse_mixing(model: nn.Module, modules: Iterable[nn.Module] | None = None) -> None:
    """Refuse layers that let one image reach another image's gradient, trained or not.

    Args:
        model: The model.
        modules: Its modules, if they are known already.

    Raises:
        ModelError: A layer normalises by statistics of the batch, keeps such statistics, or
            rewrites its weights while it runs.
    """
    for module in model.modules() if modules is None else modules:
        if isinstance(module, _SUSPECTS) and _mixing(module) is not None:
            name = next(name for name, other in model.named_modules() if other is module)
            refuse_mixing_layer(name, module)


def refuse_mixing_layer(layer: str, module: nn.Module) -> None:
    """The same for one layer.

    Raises:
        ModelError: It does.
    """
    problem = _mixing(module)
    if problem is not None:
        what, do = problem
        raise ModelError(what, where=layer, do=do)


_SUSPECTS = (_BatchNorm, _InstanceNorm, nn.Embedding, nn.EmbeddingBag)


def _mixing(module: nn.Module) -> tuple[str, str] | None:
    """What is wrong with a layer, and what to do."""
    if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
        return (
            "batch normalisation by the statistics of the batch mixes images",
            "freeze its statistics (eval mode, running statistics kept) or use GroupNorm",
        )
    if isinstance(module, _InstanceNorm) and module.training and module.running_mean is not None:
        return (
            "running statistics of private images leave the model without noise",
            "put the layer in eval mode or use track_running_stats=False",
        )
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) and (
        module.max_norm is not None or module.scale_grad_by_freq
    ):
        return (
            "max_norm rewrites weights without noise and scale_grad_by_freq mixes images",
            "use max_norm=None and scale_grad_by_freq=False",
        )
    return None


def check_losses(losses: Tensor) -> None:
    """Refuse anything but one loss per image.

    Raises:
        ModelError: The tensor is not of shape (B,).
    """
    if losses.dim() != 1 or not losses.is_floating_point():
        raise ModelError(
            f"expected one loss per image, shape (B,), got {tuple(losses.shape)} {losses.dtype}",
            where="losses",
            do="return each image's own loss, without summing over images",
        )


@contextmanager
def isolated(
    everything: Iterable[nn.Parameter], parameters: Mapping[str, nn.Parameter]
) -> Generator[None, None, None]:
    """Differentiate `parameters` only; put requires_grad and .grad back at the end.

    Parameters outside the mapping cost nothing meanwhile: no weight gradient, and no input
    gradient below the first layer that needs one.

    Args:
        everything: All parameters of the model.
        parameters: Those to differentiate.
    """
    flags = [(parameter, parameter.requires_grad) for parameter in everything]
    kept = [(parameter, parameter.grad) for parameter in parameters.values()]
    wanted = {id(parameter) for parameter in parameters.values()}
    try:
        for parameter, flag in flags:
            if flag != (id(parameter) in wanted):
                parameter.requires_grad_(not flag)
        for parameter, _ in kept:
            parameter.grad = None
        with torch.enable_grad():
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for parameter, grad in kept:
            parameter.grad = grad


@contextmanager
def rerouted(
    forwards: Callable[[], Iterator[tuple[nn.Module, Callable[..., Any]]]],
) -> Generator[None, None, None]:
    """Replace the forward pass of single modules, not of their classes, and put it back.

    Args:
        forwards: Gives modules and what runs instead; the module is untouched when asked for.
    """
    replaced: list[tuple[nn.Module, dict[str, Any]]] = []
    try:
        for module, forward in list(forwards()):
            # A forward pass that someone else put on this instance is put back too.
            replaced.append((module, {k: v for k, v in vars(module).items() if k == "forward"}))
            module.forward = forward
        yield
    finally:
        for module, own in replaced:
            vars(module).pop("forward", None)
            vars(module).update(own)


# Activations whose own backward pass needs their input, which autograd copies first if they
# overwrite it.
_COPYING = (nn.SiLU, nn.Mish, nn.Hardswish)


def copying_activations(model: nn.Module) -> list[nn.Module]:
    """Activations that cost a copy if they work in place, and save no memory by it."""
    return [m for m in model.modules() if isinstance(m, _COPYING) and m.inplace]


@contextmanager
def out_of_place(activations: Iterable[nn.Module]) -> Generator[None, None, None]:
    """Let in-place activations write elsewhere meanwhile."""
    activations = list(activations)
    try:
        for module in activations:
            module.inplace = False  # pyright: ignore[reportArgumentType]
        yield
    finally:
        for module in activations:
            module.inplace = True  # pyright: ignore[reportArgumentType]


def check_units(units: Units | None, images: int) -> None:
    """Refuse an index that does not give every image a unit.

    Raises:
        ModelError: Its length is not the number of losses, or a unit is out of range.
    """
    if units is None:
        return
    index, count = units.index, units.count
    if index.shape != (images,) or index.dtype != torch.int64:
        raise ModelError(
            f"expected the unit of each of {images} images, int64, got {tuple(index.shape)} "
            f"{index.dtype}",
            where="units",
        )
    if images and not 0 <= int(index.min()) <= int(index.max()) < count:
        raise ModelError(
            f"expected units in 0 … {count - 1}, got {int(index.min())} … {int(index.max())}",
            where="units",
        )


def sound_norm(module: _BatchNorm) -> Callable[[Tensor], Tensor]:
    """The forward pass of a batch normalisation, such that PyTorch gets its gradients right.

    In a batch of one image the stride between images may be anything. PyTorch 2.15's backward
    pass on CPUs takes input and gradient for having one layout when only one of the two is
    channels last with such a stride, and then all three gradients are wrong. Detectors with
    transformer heads meet this, and layers that are vectorised over images. So one image alone is
    normalised by the formula, whose operations know their strides.
    """
    plain = module.forward

    def forward(input: Tensor) -> Tensor:
        mean, variance = module.running_mean, module.running_var
        if len(input) != 1 or module.training or mean is None or variance is None:
            return plain(input)
        shape = (1, -1, *[1] * (input.dim() - 2))
        weight, bias = cast(tuple[Tensor | None, Tensor | None], (module.weight, module.bias))
        factor = torch.rsqrt(variance + module.eps)
        if weight is not None:
            factor = factor * weight
        output = (input - mean.view(shape)) * factor.view(shape)
        if bias is not None:
            output = output + bias.view(shape)
        return output.to(input.dtype)

    return forward


@contextmanager
def sound_norms(model: nn.Module) -> Generator[None, None, None]:
    """Run every batch normalisation as `sound_norm`."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    with rerouted(lambda: ((norm, sound_norm(norm)) for norm in norms)):
        yield
