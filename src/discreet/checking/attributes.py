"""State that no parameter or buffer holds: attributes of modules, what a loss function keeps.

A queue of embeddings, a running mean, a sum of floats: whatever stays after a pass can reach the
next step without noise. It is found by walking from the model's modules and the given functions
through containers, objects and closures to numbers, tensors and arrays.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

# Attributes that torch itself gives every module; `forward` is what engines replace.
_TORCH_S = frozenset(vars(nn.Module())) | {"forward"}
_LONG = 4096  # longer containers are watched at their end, larger tensors by a sample
_LARGE = 1 << 20
_MOST = 100_000  # objects that are looked at
_ABSENT = object()
_ATOMS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)

Leaves = dict[tuple[str, str], Any]
"""Name of an attribute and a place inside it, to what is there."""


class Attributes:
    """What a model and some functions hold beside parameters and buffers.

    Args:
        model: The model.
        holders: Further functions or objects, by name, such as a loss function.
    """

    def __init__(self, model: nn.Module, holders: Mapping[str, Any] | None = None) -> None:
        self._model, self._holders = model, dict(holders or {})
        walk = self._walk()
        self._before, self._undo = walk.leaves, walk.undo

    def changed(self) -> Leaves:
        """What is now other than it was at first."""
        return different(self._walk().leaves, self._before)

    def restore(self) -> None:
        """Put everything back; of large tensors only which ones they were."""
        with torch.no_grad():
            for undo in self._undo:
                undo()

    def _walk(self) -> _Walk:
        walk = _Walk(self._model)
        for name, module in self._model.named_modules():
            path = f"{name}." if name else ""
            walk.mapping(vars(module), path, skip=_TORCH_S)
            walk.mapping(cast("dict[str, Any]", vars(module).get("_buffers", {})), path)
            forward = vars(type(module)).get("forward")
            if isinstance(forward, types.FunctionType) and not _is_library(forward.__module__):
                walk.function(forward, path, "")
        for name, holder in self._holders.items():
            walk.visit(holder, name, "")
        return walk


def different(leaves: Leaves, others: Leaves) -> Leaves:
    """Those of the first, or absent from it, that are not the same in the second."""
    return {
        place: leaves.get(place, _ABSENT)
        for place in dict.fromkeys([*leaves, *others])
        if not same(leaves.get(place, _ABSENT), others.get(place, _ABSENT))
    }


class _Walk:
    """Collects leaves, and how to put back what holds them. Every object is visited once."""

    def __init__(self, model: nn.Module) -> None:
        self.leaves: Leaves = {}
        self.undo: list[Callable[[], None]] = []
        self._visited = {id(module) for module in model.modules()}
        self._visited |= {id(parameter) for parameter in model.parameters()}
        self._kept: list[object] = []  # ids stay those of living objects

    def visit(self, value: Any, name: str, place: str) -> None:
        """Go through a value.

        Args:
            value: Anything.
            name: The attribute that it is in, dotted.
            place: Where in it.
        """
        if isinstance(value, _ATOMS):
            self.leaves[name, place] = value
            return
        if isinstance(value, type | types.ModuleType) or id(value) in self._visited:
            return
        if len(self._kept) >= _MOST:
            return
        self._visited.add(id(value))
        self._kept.append(value)
        if isinstance(value, Tensor):
            self._tensor(value, name, place)
        elif isinstance(value, np.ndarray):
            self._array(cast("np.ndarray[Any, Any]", value), name, place)
        elif isinstance(value, set | frozenset):
            self._set(cast("set[Any]", value), name, place)
        elif isinstance(value, dict):
            self._entries(cast("dict[Any, Any]", value), name, place)
        elif isinstance(value, list | tuple | deque):
            self._sequence(cast("list[Any]", value), name, place)
        elif isinstance(value, types.FunctionType):
            self.function(value, f"{name}.", place)
        elif isinstance(value, types.MethodType):
            self.visit(value.__self__, name, place)
            self.visit(value.__func__, name, place)
        elif isinstance(value, functools.partial):
            self.visit((value.func, value.args, value.keywords), name, place)
        else:
            self._object(value, name, place)

    def mapping(
        self, entries: MutableMapping[str, Any], path: str, *, skip: Iterable[str] = ()
    ) -> None:
        """Go through attributes."""
        names = [name for name in entries if name not in skip]
        self._keep(entries, names, whole=frozenset(skip))
        for name in names:
            self.visit(entries[name], f"{path}{name}", "")

    def function(self, function: types.FunctionType, path: str, place: str) -> None:
        """Go through what a function closes over, and the globals that it names."""
        self._visited.add(id(function))
        inside = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        for name, cell in inside:
            try:
                value = cell.cell_contents
            except ValueError:  # empty as yet
                continue
            self.undo.append(lambda cell=cell, value=value: setattr(cell, "cell_contents", value))
            self.visit(value, f"{path}{name}", place)
        own = function.__globals__
        used = [n for n in _global_names(function.__code__) if n in own]
        followed = [n for n in used if not _is_foreign(own[n], function.__module__)]
        self._keep(own, followed)
        for name in followed:
            self.visit(own[name], f"{path}{name}", place)
        self.visit((function.__defaults__, function.__kwdefaults__), f"{path}defaults", place)
        self.mapping(vars(function), path)

    def _keep(
        self,
        entries: MutableMapping[Any, Any],
        names: Iterable[Any],
        *,
        whole: frozenset[str] | None = None,
    ) -> None:
        """Put these entries back; with `whole`, take others than those out too."""
        saved = {name: entries[name] for name in names}

        def undo() -> None:
            if whole is not None:
                for name in [n for n in entries if n not in saved and n not in whole]:
                    del entries[name]
            for name, value in saved.items():
                if entries.get(name, _ABSENT) is not value:
                    entries[name] = value

        self.undo.append(undo)

    def _tensor(self, value: Tensor, name: str, place: str) -> None:
        if torch._C._functorch.is_functorch_wrapped_tensor(value):  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
            self.leaves[name, place] = "a tensor of a transformed function"
            return
        try:
            now = value.detach()
            if now.numel() > _LARGE:
                self.leaves[name, place] = now.flatten()[:: now.numel() // _LONG].clone()
                return
            self.leaves[name, place] = saved = now.clone()
        except (RuntimeError, NotImplementedError):  # sparse, or without storage
            return

        def undo() -> None:
            if not same(now, saved):
                now.copy_(saved)

        self.undo.append(undo)

    def _array(self, value: np.ndarray[Any, Any], name: str, place: str) -> None:
        if value.size > _LARGE:
            self.leaves[name, place] = value.flat[:: value.size // _LONG]
            return
        self.leaves[name, place] = saved = value.copy()

        def undo() -> None:
            if value.flags.writeable and value.shape == saved.shape:
                value[...] = saved

        self.undo.append(undo)

    def _set(self, value: set[Any] | frozenset[Any], name: str, place: str) -> None:
        saved = frozenset(value)
        self.leaves[name, place] = saved
        if isinstance(value, set):

            def undo() -> None:
                value.clear()
                value.update(saved)

            self.undo.append(undo)

    def _entries(self, value: dict[Any, Any], name: str, place: str) -> None:
        self.leaves[name, f"{place}#"] = len(value)
        if len(value) <= _LONG:
            self._keep(value, list(value), whole=frozenset())
        for key in list(value)[-_LONG:]:
            self.visit(value[key], name, f"{place}[{key!r:.40}]")

    def _sequence(
        self, value: list[Any] | tuple[Any, ...] | deque[Any], name: str, place: str
    ) -> None:
        self.leaves[name, f"{place}#"] = len(value)
        if not isinstance(value, tuple):
            saved = list(value)

            def undo() -> None:
                if len(value) != len(saved) or any(
                    a is not b for a, b in zip(value, saved, strict=True)
                ):
                    value.clear()
                    value.extend(saved)

            self.undo.append(undo)
        for index in range(max(0, len(value) - _LONG), len(value)):
            self.visit(value[index], name, f"{place}[{index}]")

    def _object(self, value: Any, name: str, place: str) -> None:
        held = getattr(value, "__dict__", None)
        module = isinstance(value, nn.Module)  # one that the model does not know of
        if not isinstance(held, dict) or (not module and _is_library(type(value).__module__)):
            return
        entries = cast("dict[str, Any]", held)
        self._keep(entries, list(entries), whole=frozenset())
        for key, inner in list(entries.items()):
            if not (module and key.endswith("_hooks")):
                self.visit(inner, name, f"{place}.{key}")
        call = vars(type(value)).get("__call__")
        if isinstance(call, types.FunctionType):
            self.function(call, f"{name}.", place)


def _is_library(module: str) -> bool:
    """Whether it is torch's, numpy's or Python's own: such keep to themselves."""
    first = module.partition(".")[0]
    return first in ("torch", "numpy") or first in sys.stdlib_module_names - {"__main__"}


def _is_foreign(value: Any, module: str) -> bool:
    """Whether a global is no state: a module, a class, a function of somebody else."""
    if isinstance(value, types.FunctionType):
        return value.__module__ != module
    return callable(value) and not isinstance(value, nn.Module) and not hasattr(value, "__dict__")


def _global_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def same(one: Any, other: Any) -> bool:
    """Whether two values are alike: tensors and arrays bit for bit, all else by `==`."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype or one.device != other.device:
            return False
        return bool(torch.equal(one, other)) or bool(
            one.is_floating_point() and torch.equal(one.nan_to_num(), other.nan_to_num())
        )
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return one is other or one == other or (one != one and other != other)
