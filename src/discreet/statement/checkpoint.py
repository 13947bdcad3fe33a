"""Whether a checkpoint is a model for use, and nothing that would run on use.

Stock Ultralytics builds a model again from the description that it carries, and evaluates parts
of it as Python. So all that it carries is compared with what a stock model has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast, get_args

from discreet.data import TaskName
from discreet.statement.architecture import architecture_faults
from discreet.statement.archive import WeightsFile
from discreet.statement.pickles import METHOD, ORDERED_DICT, Inert, objects, shown
from discreet.statement.summary import KEY

_KEYS = frozenset(
    {"model", "ema", "optimizer", "epoch", "train_args", "date", "version", "license", KEY}
)
_EMPTY_KEYS = ("ema", "optimizer")
_TEXTS = ("date", "version", "license")
_LONGEST_TEXT = 60
TRAVELLING_SETTINGS = ("imgsz", "task", "single_cls")
"""The only settings inside the weights: what stock predict, val and export read."""

_TASKS = "ultralytics.nn.tasks "
_Content = dict[Any, Any]


def checkpoint_faults(weights: WeightsFile) -> list[str]:
    """What a checkpoint has beyond a model for use; nothing for one that could not be read."""
    content = weights.content
    if content is None:
        return []  # told already
    if not isinstance(content, dict):
        return ["it is not a checkpoint"]
    return list(dict.fromkeys(_faults(cast(_Content, content))))


def _faults(content: _Content) -> Iterator[str]:
    yield from (f"it holds {shown(key)}" for key in content if key not in _KEYS)
    yield from (f"{key!r} is not empty" for key in _EMPTY_KEYS if content.get(key) is not None)
    for key in _TEXTS:
        text = content.get(key)
        if text is not None and not (isinstance(text, str) and len(text) <= _LONGEST_TEXT):
            yield f"{key!r} is not a short text"
    model = content.get("model")
    if not isinstance(model, Inert) or not model.is_module or not isinstance(model.state, dict):
        yield "it holds no model"
        return
    state = cast(_Content, model.state)
    if not all(_are_settings(found) for found in (content.get("train_args"), state.get("args"))):
        yield "it holds settings that inference does not need"
    parts: Any = state.get("_modules")  # an ordered dict in older versions of torch
    named = parts.items if isinstance(parts, Inert) else list((parts or {}).items())
    if state.get("criterion") is not None or "criterion" in dict(named):
        yield "it holds a training loss"
    yield from (
        (f"its model's description {what}" for what in architecture_faults(state["yaml"]))
        if "yaml" in state
        else ("it holds no description of its model",)
    )
    yield from _module_faults(content, model)


def _are_settings(found: Any) -> bool:
    if not isinstance(found, dict):
        return False
    settings = cast(_Content, found)
    sizes = settings.get("imgsz", 0)
    return (
        set(settings) <= set(TRAVELLING_SETTINGS)
        and all(isinstance(size, int) for size in (sizes if isinstance(sizes, list) else [sizes]))
        and settings.get("task", "detect") in get_args(TaskName)
        and isinstance(settings.get("single_cls", False), bool)
    )


def _module_faults(content: _Content, model: Inert) -> Iterator[str]:
    """What modules of a stock model do not carry: hooks, models in models, loose methods."""
    found = [at for at in objects(content) if isinstance(at, Inert)]
    forwards: set[int] = set()
    for module in found:
        if not module.is_module:
            continue
        if module.name.startswith(_TASKS) and module is not model:
            yield "it holds a model beside or inside its model"
        if not isinstance(module.state, dict):
            yield "it holds a module without attributes"
            continue
        for key, value in cast("dict[str, Any]", module.state).items():
            if key.endswith("_hooks") and not _is_empty(value):
                yield "it holds hooks, which run when the model does"
            if key == "forward":
                forwards.add(id(value))
                if not (isinstance(value, Inert) and value.name == METHOD):
                    yield "it holds a module that does something else when it runs"
    if any(at.name == METHOD and id(at) not in forwards for at in found):
        yield "it holds a method where none is needed"


def _is_empty(hooks: Any) -> bool:
    if isinstance(hooks, Inert):
        return hooks.name == ORDERED_DICT and not hooks.items
    return hooks == {} or hooks is None
