"""Name the module or the loss term through which one unit reaches another.

The same batch runs twice, with one unit altered in the second run. What modules take and give
for the *other* units is compared in the order in which it is computed; the first change is where
the units meet. If nothing changes on the way forward, gradients are compared on the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from discreet.checking.bench import Bench
from discreet.checking.held import relative
from discreet.checking.passes import Units

CHANGED = 1e-6
_LOSS = "the loss"


@dataclass(frozen=True, kw_only=True)
class _Event:
    """What one module took or gave for the untouched units."""

    module: str
    kind: str  # "takes" or "gives"
    rows: tuple[Tensor, ...]


def culprits(bench: Bench, before: Units, after: Units) -> tuple[str, ...]:
    """Where the altered unit reaches the others.

    Args:
        bench: The subject.
        before: A batch.
        after: The same batch, with units altered.

    Returns:
        Names of a module, or of loss terms; maybe none, if the engine itself couples units.
    """
    untouched = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a == b]
    first = _forward(bench, before, untouched)
    second = _forward(bench, after, untouched)
    for one, other in zip(first, second, strict=False):
        if (one.module, one.kind) != (other.module, other.kind) or _differ(one, other):
            return (_named(bench.subject.model, one),)
    terms = changed_terms(bench, before, after)
    return terms or _backward(bench, before, after, untouched)


def changed_terms(bench: Bench, before: Units, after: Units) -> tuple[str, ...]:
    """Names of the loss terms that change for units that are the same in both batches."""
    untouched = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a == b]
    one, other = bench.losses(before)[untouched], bench.losses(after)[untouched]
    if one.shape != other.shape:
        return (_LOSS,)
    names = bench.subject.terms
    changed = [t for t in range(one.shape[1]) if relative(one[:, t], other[:, t]) > CHANGED]
    return tuple(f"loss term {names[t]}" if len(names) > 1 else _LOSS for t in changed)


def _named(model: nn.Module, event: _Event) -> str:
    modules = dict(model.named_modules())
    if event.kind == "gives":
        return f"{event.module or 'the model'} ({type(modules[event.module]).__name__})"
    if not event.module:
        return "the model's input"
    parent = event.module.rpartition(".")[0]
    while parent and isinstance(modules.get(parent), nn.Sequential | nn.ModuleList):
        parent = parent.rpartition(".")[0]
    kind = type(modules[parent]).__name__
    return f"{parent or 'the model'} ({kind}), before {event.module}"


def _differ(one: _Event, other: _Event) -> bool:
    pairs = list(zip(one.rows, other.rows, strict=False))
    return len(one.rows) != len(other.rows) or any(relative(a, b) > CHANGED for a, b in pairs)


def _forward(bench: Bench, units: Units, untouched: Sequence[int]) -> list[_Event]:
    events: list[_Event] = []
    model = bench.subject.model

    def add(module: str, kind: str, tree: Any) -> None:
        rows = tuple(_rows(tree, len(units), untouched))
        events.append(_Event(module=module, kind=kind, rows=rows))

    with bench.calm(), torch.enable_grad(), _watched(model, add):
        bench.subject.losses_of(bench.subject.batch_of(units))
    return events


@contextmanager
def _watched(model: nn.Module, add: Callable[[str, str, Any], None]) -> Generator[None]:
    handles: list[Any] = []
    try:
        for name, module in model.named_modules():

            def before(_: Any, args: Any, kwargs: Any, name: str = name) -> None:
                add(name, "takes", (args, kwargs))

            def after(_: Any, __: Any, output: Any, name: str = name) -> None:
                add(name, "gives", output)

            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows(tree: Any, units: int, untouched: Sequence[int]) -> Iterator[Tensor]:
    """Copies of the untouched units' parts of all tensors that have such."""
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            dims = [d for d, size in enumerate(leaf.shape) if size == units]
            if dims:
                index = torch.tensor(untouched, device=leaf.device)
                yield leaf.detach().index_select(dims[0], index)


def _backward(
    bench: Bench, before: Units, after: Units, untouched: Sequence[int]
) -> tuple[str, ...]:
    one, other = (_gradient_events(bench, units, untouched) for units in (before, after))
    changed = [
        i
        for i, (a, b) in enumerate(zip(one, other, strict=False))
        if a.module != b.module or _differ(a, b)
    ]
    if not changed:
        return ()
    first = changed[0]
    # A tensor that is given by one module and taken by the next is reported for both; it is the
    # one that takes it whose backward pass was the last to run.
    takers = [i for i in changed if one[i].kind == "takes"]
    chosen = one[takers[0] if takers and takers[0] <= first + 1 else first]
    kind = type(dict(bench.subject.model.named_modules())[chosen.module]).__name__
    return (f"{chosen.module or 'the model'} ({kind}), in its backward pass",)


def _gradient_events(bench: Bench, units: Units, untouched: Sequence[int]) -> list[_Event]:
    events: list[_Event] = []

    def add(module: str, kind: str, tree: Any) -> None:
        for leaf in pytree.tree_leaves(tree):
            if isinstance(leaf, Tensor) and leaf.requires_grad and module:

                def seen(grad: Tensor) -> None:
                    rows = tuple(_rows(grad, len(units), untouched))
                    events.append(_Event(module=module, kind=kind, rows=rows))

                leaf.register_hook(seen)

    subject = bench.subject
    with bench.calm(), torch.enable_grad(), _watched(subject.model, add):
        values = subject.losses_of(subject.batch_of(units))
        wanted = [p for p in subject.parameters.values() if p.requires_grad]
        torch.autograd.grad(values.sum(), wanted, allow_unused=True)
    return events
