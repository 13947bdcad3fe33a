"""A pickle of weights followed step by step, with nothing of it imported, called or built.

A pickle is a program for a stack machine. Stock weights need a part of that machine, which is
all that there is here: an instruction, class, function or use of them that they do not need is a
fault. Time and memory are those of the pickle's own length.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

MOST_BYTES = 2_000_000
"""Longest pickle that is followed; those of stock weights have a few 100,000 bytes."""

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"})
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

ORDERED_DICT, SET = "collections OrderedDict", "__builtin__ set"
TENSOR, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
SIZE, METHOD, STORAGE = "torch Size", "__builtin__ getattr", "storage"
_FUNCTIONS = frozenset({ORDERED_DICT, SET, TENSOR, PARAMETER, SIZE, METHOD})
_METHODS = frozenset({"forward_fuse", "forward_split"})
_MODULE = re.compile(
    r"(torch\.nn\.modules\.\w+ [A-Z]|ultralytics\.nn\.modules\.\w+ ([A-Z]|v10D)"
    r"|ultralytics\.nn\.tasks (?=\w+Model$)[A-Z])\w*",
    re.ASCII,
)
_STORAGE = re.compile(r"torch (Half|Float|Double|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage")
_BYTES = {
    "Char": 1, "Byte": 1, "Bool": 1, "Half": 2, "BFloat16": 2, "Short": 2,
    "Float": 4, "Int": 4, "Double": 8, "Long": 8,
}  # fmt: skip
_SHOWN = 80


class RefusedError(Exception):
    """The pickle does what stock weights do not need."""


@dataclass(frozen=True)
class Global:
    """The name of a class or function, `module name`; never what it names."""

    name: str


@dataclass(eq=False)
class Inert:
    """Stands for an object of a class or function that is named, never imported.

    Attributes:
        name: Class or function, as `module name`.
        args: What it was called with.
        state: What it was filled with, for a module.
        items: What was put into it, for an ordered dict.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[tuple[Any, Any]] = field(default_factory=list[tuple[Any, Any]])

    @property
    def is_module(self) -> bool:
        """Whether it is one of torch's or Ultralytics' modules."""
        return _MODULE.fullmatch(self.name) is not None


@dataclass(kw_only=True)
class Followed:
    """What a pickle holds.

    Attributes:
        content: Its value, `Inert` in the place of objects; None where it was refused.
        texts: All strings in it.
        storages: Bytes of each tensor's storage, by key.
        faults: What stock weights do not have.
    """

    content: Any = None
    texts: list[str] = field(default_factory=list[str])
    storages: dict[str, int] = field(default_factory=dict[str, int])
    faults: list[str] = field(default_factory=list[str])


def follow(program: bytes) -> Followed:
    """Follow a pickle. Never raises for what is in it: that is a fault."""
    found = Followed()
    if len(program) > MOST_BYTES:
        found.faults.append("its pickle is longer than those of stock weights")
        return found
    machine = _Machine(found)
    end = -1
    try:
        for opcode, argument, position in pickletools.genops(program):
            if isinstance(argument, str):
                found.texts.append(argument)
            machine.step(opcode.name, argument)
            end = cast(int, position)
        found.content = machine.result()
    except RefusedError as refusal:
        found.faults.append(f"its pickle {refusal}")
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, UnicodeError) as error:
        found.faults.append(f"its pickle cannot be followed ({type(error).__name__})")
    if not found.faults and end != len(program) - 1:
        found.faults.append("bytes follow its pickle")
    if found.faults:
        found.content = None
    return found


def objects(value: Any) -> Iterator[Any]:
    """Every value inside a value, and the value itself, once."""
    seen: set[int] = set()
    left = [value]
    while left:
        at = left.pop()
        if id(at) in seen:
            continue
        seen.add(id(at))
        yield at
        if isinstance(at, Inert):
            left += [at.args, at.state, at.items]
        elif isinstance(at, dict):
            left += cast("dict[Any, Any]", at).values()
        elif isinstance(at, list | tuple):
            left += cast("list[Any]", at)


def shown(value: object) -> str:
    """A value for a message: in one line, and short."""
    text = repr(value) if isinstance(value, str | int | float) else type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class _Machine:
    def __init__(self, found: Followed) -> None:
        self._found = found
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # stacks under a mark
        self._memo: dict[int, Any] = {}

    def result(self) -> Any:
        """What stands alone on the stack at the end.

        Raises:
            RefusedError: Something else is left, or a name is kept that nothing was made of.
        """
        if self._below or len(self._stack) != 1:
            raise RefusedError("leaves something behind")
        (value,) = self._stack
        for inner in objects(value):
            if isinstance(inner, Global):
                raise RefusedError("holds a class or function itself")
            # Not when it is called: what it was called with may have been filled since.
            if isinstance(inner, Inert) and inner.name in _FUNCTIONS and not _fits(inner):
                raise RefusedError(f"calls {inner.name} with what stock weights do not give it")
        return value

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction.

        Raises:
            RefusedError: Stock weights have none such, here.
            IndexError, KeyError: Nothing stands where it takes something from.
        """
        stack = self._stack
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in _TUPLES:
            self._replace(_TUPLES[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        else:
            method = getattr(self, f"_{name.lower()}", None)
            if method is None or name not in _OTHERS:
                raise RefusedError(f"has the instruction {name}")
            method(argument)

    def _replace(self, count: int) -> None:
        if count > len(self._stack):
            raise IndexError(count)
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _marked(self) -> list[Any]:
        marked, self._stack = self._stack, self._below.pop()
        return marked

    def _proto(self, argument: int) -> None:
        if argument != 2 or self._stack or self._memo:
            raise RefusedError("has the instruction PROTO")

    def _stop(self, _: None) -> None:
        pass  # the last of them: `genops` ends with it

    def _mark(self, _: None) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _tuple(self, _: None) -> None:
        marked = tuple(self._marked())
        self._stack.append(marked)

    def _empty_tuple(self, _: None) -> None:
        self._stack.append(())

    def _empty_list(self, _: None) -> None:
        self._stack.append([])

    def _empty_dict(self, _: None) -> None:
        self._stack.append({})

    def _append(self, _: None) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _: None) -> None:
        self._extend(self._marked())

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise RefusedError("fills what is no list")
        self._stack[-1].extend(values)

    def _setitem(self, _: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._fill([key, value])

    def _setitems(self, _: None) -> None:
        self._fill(self._marked())

    def _fill(self, flat: list[Any]) -> None:
        """Put keys and values into a dict; never a key twice, nor one that hides another."""
        target = self._stack[-1]
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        if any(type(key) not in (str, int) for key, _ in pairs):
            raise RefusedError("has a key that is neither text nor a whole number")
        if isinstance(target, dict):
            before = len(cast("dict[Any, Any]", target))
            target.update(pairs)
            if len(cast("dict[Any, Any]", target)) != before + len(pairs):
                raise RefusedError("gives a key twice")
        elif isinstance(target, Inert) and target.name == ORDERED_DICT:
            target.items += pairs
        else:
            raise RefusedError("fills what is no dict")

    def _global(self, argument: str) -> None:
        name = str(argument)
        if name not in _FUNCTIONS and not _MODULE.fullmatch(name) and not _STORAGE.fullmatch(name):
            raise RefusedError(f"names {shown(name)}, which is not in stock weights")
        self._stack.append(Global(name))

    def _newobj(self, _: None) -> None:
        args, named = self._stack.pop(), self._stack.pop()
        if not isinstance(named, Global) or not _MODULE.fullmatch(named.name) or args != ():
            raise RefusedError("makes an object that is no module, or gives it arguments")
        self._stack.append(Inert(named.name))

    def _reduce(self, _: None) -> None:
        args, named = self._stack.pop(), self._stack.pop()
        # A module that is called runs its constructor, and that may run text that it is given.
        if not isinstance(named, Global) or named.name not in _FUNCTIONS:
            raise RefusedError("calls what stock weights do not call")
        self._stack.append(Inert(named.name, _as_tuple(args)))

    def _build(self, _: None) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if not isinstance(target, Inert) or not target.is_module or target.state is not None:
            raise RefusedError("sets the state of what is no module, or twice")
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise RefusedError("gives a module a state that is no dict of attributes")
        target.state = state

    def _binpersid(self, _: None) -> None:
        pid = self._stack.pop()
        match pid:
            case ("storage", Global(name), str(key), "cpu", int(count)) if count >= 0 and (
                kind := _STORAGE.fullmatch(name)
            ):
                self._found.storages[key] = _BYTES[kind[1]] * count
                self._stack.append(Inert(STORAGE, (key,)))
            case _:
                raise RefusedError("has a tensor that is not torch's")


_OTHERS = frozenset(
    """
    PROTO STOP MARK TUPLE EMPTY_TUPLE EMPTY_LIST EMPTY_DICT APPEND APPENDS SETITEM SETITEMS GLOBAL
    NEWOBJ REDUCE BUILD BINPERSID
    """.split()  # noqa: SIM905 - two lines instead of sixteen
)


def _as_tuple(args: Any) -> tuple[Any, ...]:
    if not isinstance(args, tuple):
        raise RefusedError("calls something without a tuple of arguments")
    return cast("tuple[Any, ...]", args)


def _fits(call: Inert) -> bool:
    """Whether a function gets what stock weights give it."""
    match call.name, call.args:
        case ("collections OrderedDict", ()):
            return True
        case ("__builtin__ set", (list(values),)):
            return all(type(value) in (str, int) for value in cast("list[Any]", values))
        case ("torch Size", (tuple(sizes),)):
            return _whole(sizes)
        case ("__builtin__ getattr", (Inert() as owner, str(method))):
            return owner.is_module and method in _METHODS
        case (
            "torch._utils _rebuild_tensor_v2",
            (Inert(name=kind), int(), tuple(size), tuple(stride), bool(), Inert() as hooks),
        ):
            return kind == STORAGE and _whole(size) and _whole(stride) and _empty(hooks)
        case ("torch._utils _rebuild_parameter", (Inert(name=kind), bool(), Inert() as hooks)):
            return kind == TENSOR and _empty(hooks)
        case _:
            return False


def _whole(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _empty(hooks: Inert) -> bool:
    return hooks.name == ORDERED_DICT and not hooks.items
