"""Any other layer: the layer itself, vectorised over images, with one copy of its parameters each.

Image i sees its own copy of the parameters, an expanded view without memory of its own; the
gradient of that copy is image i's gradient. Exact for every layer that treats images alike,
which is checked: the vectorised output must equal the ordinary one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from discreet.errors import UnsupportedLayerError
from discreet.gradients.records import Held
from discreet.gradients.tape import Tape

# Largest difference between vectorised and ordinary output, relative to the largest output.
TOLERANCE = 1e-3
TOLERANCE_HALF = 5e-2


class _Host(nn.Module):
    """Runs a function while `functional_call` has swapped the layer's parameters.

    The function calls the layer's own forward pass, without hooks, which ran already.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


class Vectorised:
    """Runs one layer on all images at once, each with its own copy of the parameters.

    Args:
        tape: Where gradients go.
        layer: Dotted name.
        module: The layer; all wanted parameters inside it are covered.
        checked: Shapes at which outputs were compared already; kept by the engine.
    """

    def __init__(self, tape: Tape, layer: str, module: nn.Module, checked: set[Hashable]) -> None:
        self.tape, self.layer, self.module, self.checked = tape, layer, module, checked
        self.original = module.forward
        self._host = _Host(module)
        self._wanted = {
            f"module.{name}": parameter
            for name, parameter in module.named_parameters()
            if tape.wants(parameter)
        }

    def __call__(
        self,
        arguments: Any,
        dims: list[int | None],
        call: Callable[[Callable[..., Any], Any], Any],
        output_dims: Callable[[Any], list[int]],
    ) -> Any:
        """Output of the layer, as its own forward pass would give it.

        Args:
            arguments: Tree of arguments; its tensors in order have these `dims`.
            dims: Dimension of the images in each tensor; None for shared tensors.
            call: Calls the layer's own forward pass on a tree of arguments.
            output_dims: Dimension of the images in each tensor of the output.
        """
        leaves, spec = pytree.tree_flatten(arguments)
        where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        tensors = [leaves[i] for i in where]
        (images,) = {t.shape[d] for t, d in zip(tensors, dims, strict=True) if d is not None}
        if not images:
            return call(self.original, arguments)
        copies = {
            name: p.detach().expand(images, *p.shape).requires_grad_()
            for name, p in self._wanted.items()
        }
        outputs: list[Any] = []  # structure and dimensions, found while tracing

        def one(parameters: dict[str, Tensor], inputs: list[Tensor]) -> list[Tensor]:
            own = list(leaves)
            for i, tensor, dim in zip(where, inputs, dims, strict=True):
                own[i] = tensor if dim is None else tensor.unsqueeze(dim)
            tree = pytree.tree_unflatten(own, spec)
            result = functional_call(self._host, parameters, (lambda: call(self.original, tree),))
            flat, out_spec = pytree.tree_flatten(result)
            out_dims = output_dims(result)
            outputs[:] = [flat, out_spec, out_dims]
            found = [leaf for leaf in flat if isinstance(leaf, Tensor)]
            return [leaf.squeeze(dim) for leaf, dim in zip(found, out_dims, strict=True)]

        def vectorised() -> Any:
            # Fused attention cannot be vectorised; its plain formula can.
            with sdpa_kernel(SDPBackend.MATH):
                results = torch.vmap(one, in_dims=(0, dims), randomness="different")(
                    copies, tensors
                )
            flat, out_spec, out_dims = outputs
            moved = iter(
                result.movedim(0, dim) for result, dim in zip(results, out_dims, strict=True)
            )
            return pytree.tree_unflatten(
                [next(moved) if isinstance(leaf, Tensor) else leaf for leaf in flat], out_spec
            )

        self._check(tensors, vectorised, lambda: call(self.original, arguments))
        self.tape.enter(self.layer, images, *self._wanted.values())
        for name, copy in copies.items():
            self._collect(copy, self._wanted[name])
        return vectorised()

    def _collect(self, copy: Tensor, parameter: nn.Parameter) -> None:
        def add(grad: Tensor) -> None:
            self.tape.observe(self.layer, grad)
            self.tape.add(parameter, Held(grad))

        copy.register_hook(add)
        self.tape.leaves.append(copy)

    def _check(
        self, tensors: list[Tensor], vectorised: Callable[[], Any], plain: Callable[[], Any]
    ) -> None:
        """Compare once per shape, without dropout."""
        key = (self.layer, *((t.shape, t.dtype) for t in tensors))
        if key in self.checked:
            return
        modes = [(module, module.training) for module in self.module.modules()]
        try:
            self.module.eval()
            with torch.no_grad():
                ours, theirs = vectorised(), plain()
        finally:
            for module, mode in modes:
                module.training = mode
        pairs = zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True)
        if not all(_close(a, b) for a, b in pairs):
            raise UnsupportedLayerError(
                f"{type(self.module).__name__} gives another output for an image alone than for "
                "the image among others",
                where=self.layer,
                do="freeze the layer, or keep images in dimension 0 of its input",
            )
        self.checked.add(key)


def _close(ours: Any, theirs: Any) -> bool:
    if not (isinstance(ours, Tensor) and isinstance(theirs, Tensor)):
        return type(ours) is type(theirs)
    if ours.shape != theirs.shape:
        return False
    if not ours.is_floating_point():
        return bool(torch.equal(ours, theirs))
    # Under autocast a vectorised layer may compute more exactly than the fused kernels do.
    half = {ours.dtype, theirs.dtype} & {torch.float16, torch.bfloat16}
    tolerance = TOLERANCE_HALF if half else TOLERANCE
    ours = ours.to(theirs.dtype)
    finite = theirs[torch.isfinite(theirs)].abs()
    scale = float(finite.max()) if len(finite) else 0.0
    return torch.allclose(ours, theirs, rtol=0, atol=tolerance * scale, equal_nan=True)


def images_first(
    tape: Tape, layer: str, module: nn.Module, checked: set[Hashable]
) -> Callable[..., Any]:
    """Replacement of the forward pass of a layer without a rule of its own.

    Dimension 0 of the first tensor counts the images; tensors of that length in dimension 0 are
    per image, others are shared by all images.
    """
    vectorised = Vectorised(tape, layer, module, checked)

    def call(original: Callable[..., Any], arguments: Any) -> Any:
        args, kwargs = arguments
        return original(*args, **kwargs)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return vectorised.original(*args, **kwargs)
        tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if not tensors or not tensors[0].dim():
            raise UnsupportedLayerError(
                "it has no rule of its own, and no input whose dimension 0 could be images",
                where=layer,
                do="freeze its parameters",
            )
        images = len(tensors[0])
        dims = [0 if t.dim() and len(t) == images else None for t in tensors]
        if any(t.requires_grad and dim is None for t, dim in zip(tensors, dims, strict=True)):
            raise UnsupportedLayerError(
                "it has no rule of its own, and an input that is not per image needs a gradient",
                where=layer,
                do="freeze its parameters, or keep images in dimension 0 of its inputs",
            )
        try:
            return vectorised(
                (args, kwargs),
                dims,
                call,
                lambda out: [0 for t in pytree.tree_leaves(out) if isinstance(t, Tensor)],
            )
        except UnsupportedLayerError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise UnsupportedLayerError(
                f"{type(module).__name__} has no rule of its own and cannot be vectorised over "
                f"images: {error}",
                where=layer,
                do="freeze its parameters, or use engine=reference: slow, but for any layer",
            ) from error

    return forward
