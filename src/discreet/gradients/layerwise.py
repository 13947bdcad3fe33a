"""The project's own engine: one forward pass, one backward pass, exact per-image gradients.

During a pass every layer that owns a wanted parameter runs through a node of its own in
autograd's graph. The node's backward pass computes the input's gradient by the ordinary kernel,
and the weight's gradient per image instead of summed; see `discreet.gradients.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from discreet.errors import UnsupportedLayerError
from discreet.gradients.arena import Arena
from discreet.gradients.folding import Folding
from discreet.gradients.isolation import (
    Losses,
    Watched,
    check_losses,
    check_parameters,
    check_units,
    copying_activations,
    isolated,
    out_of_place,
    refuse_mixing,
    rerouted,
    sound_norm,
)
from discreet.gradients.probing import Probes, groups
from discreet.gradients.records import RecordedGradients, Units
from discreet.gradients.rules import Replacement, replacement_for, rule_for
from discreet.gradients.selection import Selection
from discreet.gradients.tape import Tape


class LayerwiseEngine:
    """Per-example gradients layer by layer.

    Args:
        model: The model that `losses` runs; changed only while a pass runs.
        parameters: Dotted name to parameter; others get no work at all.
        benchmark: Measure once per layer and shape which method is fastest. Results agree to
            rounding; without it they are the same in every run.

    Raises:
        ModelError: A parameter is not the model's.
    """

    name = "discreet"

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        *,
        benchmark: bool = True,
    ) -> None:
        check_parameters(model, parameters)
        self._model = model
        self._parameters = dict(parameters)
        self._device = next((p.device for p in parameters.values()), torch.device("cpu"))
        self._selection = Selection(benchmark=benchmark, device=self._device)
        self._folding, self._arena = Folding(), Arena(self._device)
        self._checked: set[Hashable] = set()
        self._probes = Probes()
        self._watched = Watched(model, self._parameters)
        self._look()

    def per_example_gradients(
        self, losses: Losses, units: Units | None = None
    ) -> RecordedGradients:
        """Run `losses` and one backward pass.

        The first pass runs one forward pass more, to see which layers can run as one. Whenever
        layers, or what lies between them, run in a way not met before at this batch size, a few
        backward passes more show whether the loss of one image reaches another; see `probing`.

        Args:
            losses: Runs the model; returns one loss per image, (B,). Inside, gradients may be
                taken of inputs, not of parameters. The first pass, and one after the model took
                another way than before, calls it twice.
            units: Which images belong together; each image alone if None.

        Returns:
            Gradients of the units: sums over their images' gradients.

        Raises:
            ModelError: A layer mixes images, or the losses are not per image, or a layer was
                replaced since the engine was made.
            UnsupportedLayerError: A layer's or parameter's per-image gradients are not known.
        """
        self._look()
        refuse_mixing(self._model, self._watched.modules)
        with isolated(self._everything, self._parameters), out_of_place(self._copying):
            with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
                self._selection.measure()
            watched = self._folding.watched or self._watch(losses, units)
            found = self._fold(losses, units)
            if found is None:
                # Someone uses what a folded pair leaves out: once more, layer by layer.
                with self._folding.off():
                    found = self._run(losses, units)
            elif not watched:
                self._folding.give_up()
            return found

    def _look(self) -> None:
        """See whether the model has other layers than the last time."""
        if self._watched.changed():
            self._copying = copying_activations(self._model)
            self._everything = tuple(self._model.parameters())
            self._routes = _routes(self._model, self._parameters)
            self._folding.forget()

    def _watch(self, losses: Losses, units: Units | None) -> bool:
        """See which pairs can be folded; whether the losses could be computed for that."""
        tape = self._tape(units)
        try:
            # Without a graph, so that already the first pass with one has folded layers.
            with (
                rerouted(lambda: self._replacements(tape)),
                torch.no_grad(),
                self._folding.watch(),
            ):
                losses()
        except Exception:  # losses that need a graph; if it is another error, it will come again
            return False
        return True

    def _fold(self, losses: Losses, units: Units | None) -> RecordedGradients | None:
        """Run with folded pairs; None if one turns out not to be a pair."""
        self._folding.broken = False
        try:
            found = self._run(losses, units)
        except Exception as error:
            if not self._folding.broken:
                raise (_explained(error) or error) from error.__cause__
            return None
        return None if self._folding.broken else found

    def _run(self, losses: Losses, units: Units | None) -> RecordedGradients:
        tape = self._tape(units)
        with rerouted(lambda: self._replacements(tape)):
            values = losses()
            check_losses(values)
            check_units(units, len(values))
            tape.start(len(values))
            if len(values) and values.requires_grad and not self._folding.broken:
                self._backward(tape, values)
        return tape.release(len(values))

    def _tape(self, units: Units | None) -> Tape:
        return Tape(self._parameters, self._selection, self._folding, self._arena, units)

    def _backward(self, tape: Tape, values: Tensor) -> None:
        inputs = [*self._parameters.values(), *tape.leaves]
        # Rules choose their own precision: the caller's autocast must not reach them.
        with torch.autocast(values.device.type, enabled=False):
            calls = tuple(tape.calls)
            if len(values) > 1 and self._probes.due(calls, values):
                for group in groups(len(values), values.device):
                    with tape.probe(~group):
                        values[group].sum().backward(retain_graph=True, inputs=inputs)
                    self._refuse_strays()
                self._probes.done(calls, values)
            with tape.record():
                values.sum().backward(inputs=inputs)
        self._refuse_strays()

    def _refuse_strays(self) -> None:
        """Layers give parameters no ordinary gradient: one that has one was used elsewhere."""
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                raise UnsupportedLayerError(
                    "the parameter is used outside the forward pass of the layer that owns it",
                    where=name,
                    do="freeze it, or use it through its layer",
                )

    def _replacements(self, tape: Tape) -> Iterator[tuple[nn.Module, Callable[..., Any]]]:
        if any(("forward" in vars(route.module)) != route.overridden for route in self._routes):
            self._routes = _routes(self._model, self._parameters)
        for route in self._routes:
            yield route.module, route.replace(tape, route.layer, route.module, self._checked)


def _explained(error: Exception) -> UnsupportedLayerError | None:
    """PyTorch's errors that name neither layer nor reason."""
    if type(error).__module__.startswith("torch._dynamo"):
        return UnsupportedLayerError(
            f"torch.compile hides the calls of layers: {error}",
            where="losses",
            do="compute the losses without torch.compile",
        )
    if "use_reentrant" in str(error):
        return UnsupportedLayerError(
            "reentrant checkpoints run a backward pass of their own",
            where="losses",
            do="use torch.utils.checkpoint with use_reentrant=False",
        )
    return None


@dataclass(frozen=True, kw_only=True)
class _Route:
    """A layer that runs another way during a pass.

    Attributes:
        layer: Dotted name.
        module: The layer.
        replace: Makes its forward pass.
        overridden: Whether someone else replaced this instance's forward pass.
    """

    layer: str
    module: nn.Module
    replace: Replacement
    overridden: bool


def _routes(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> list[_Route]:
    """Outermost modules that own a wanted parameter, whole attention layers, frozen norms.

    Raises:
        UnsupportedLayerError: One of them is compiled.
    """
    wanted = {id(parameter) for parameter in parameters.values()}
    seen: set[nn.Module] = set()

    def walk(name: str, module: nn.Module, compiled: bool = False) -> Iterator[_Route]:
        if module in seen:
            return
        seen.add(module)
        compiled = compiled or vars(module).get("_compiled_call_impl") is not None
        whole = isinstance(module, nn.MultiheadAttention)
        owns = any(id(p) in wanted for p in module.parameters(recurse=whole))
        if owns or (isinstance(module, _BatchNorm) and rule_for(module) is not None):
            layer = name or type(module).__name__
            if compiled:
                raise UnsupportedLayerError(
                    "it is inside a compiled module, which hides the calls of its layers",
                    where=layer,
                    do="give the engine the model as it was before torch.compile",
                )
            yield _Route(
                layer=layer,
                module=module,
                replace=replacement_for(module),
                overridden="forward" in vars(module),
            )
            if rule_for(module) is None:
                # Vectorised: the layers inside run on one image each.
                yield from inner_norms(layer, module)
            return
        for child_name, child in module.named_children():
            yield from walk(
                f"{name}.{child_name}" if name else child_name,
                child,
                compiled or type(module).__name__ == "OptimizedModule",
            )

    def inner_norms(layer: str, module: nn.Module) -> Iterator[_Route]:
        for name, norm in module.named_modules(prefix=layer):
            if isinstance(norm, _BatchNorm) and norm is not module and rule_for(norm) is not None:
                seen.add(norm)
                yield _Route(
                    layer=name,
                    module=norm,
                    replace=lambda _tape, _layer, module, _checked: sound_norm(module),
                    overridden=False,
                )

    return list(walk("", model))
