"""What a value may be: each kind of value carries the sentence that errors and help print.

A kind is a type annotation, checked by pydantic in strict mode; `Expected` inside it is the one
wording for that kind. Text from the command line is read first by `parse_value`.
"""

from __future__ import annotations

import ast
import math
import numbers
import os
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter

from discreet.recipes import LARGEST_ZOOM

OPTIMIZERS = ("SGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "auto")
# More images or steps than anybody has, and than a ledger counts.
MAX_COUNT = 1_000_000_000
MAX_NOISE = 1_000_000
# A recipe takes four at most; all views of an image are held in memory at once.
MAX_VIEWS = 64
MAX_SHOWN = 60  # characters of a value that an error repeats


@dataclass(frozen=True)
class Expected:
    """Wording of a kind of value, as in "expected TEXT".

    Attributes:
        text: What it may be.
        example: One such value as typed, where `text` alone leaves doubt.
    """

    text: str
    example: str = ""


@dataclass(frozen=True)
class Verbatim:
    """Marks text that is never read as a number, a list or a truth value (a name, a path)."""


def parse_value(text: str) -> object:
    """Read a value typed on a command line, as Ultralytics does, without running code.

    `true`, `false` and `none` in any case, then Python literals (numbers, lists, quoted text),
    then lists of bare words (`[23.cv2,23.cv3]`); anything else stays text.
    """
    text = text.strip()
    known: Mapping[str, object] = {"none": None, "true": True, "false": False}
    if text.lower() in known:
        return known[text.lower()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # literals like "1or 2" warn before they fail
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    if text.startswith("[") and text.endswith("]") and not any(c in text[1:-1] for c in "[](){}"):
        return [parse_value(part) for part in text[1:-1].split(",") if part.strip()]
    return text


def expected(kind: Any) -> str:
    """The wording of a kind of value: "a number from 0 to 1"; that None is allowed is left out."""
    for extra in getattr(kind, "__metadata__", ()):
        if isinstance(extra, Expected):
            return extra.text
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return expected(arguments[0])
    if origin is Literal:
        return " or ".join(str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return ", or ".join(expected(part) for part in arguments if part is not type(None))
    return "True or False" if kind is bool else "text"


def example_of(kind: Any) -> str:
    """A value of a kind, as typed; empty where its wording needs none."""
    for extra in getattr(kind, "__metadata__", ()):
        if isinstance(extra, Expected):
            return extra.example
    parts = get_args(kind) if get_origin(kind) in (Annotated, Union, types.UnionType) else ()
    return next((found for found in map(example_of, parts) if found), "")


def _is_verbatim(kind: Any) -> bool:
    if any(isinstance(extra, Verbatim) for extra in getattr(kind, "__metadata__", ())):
        return True
    return any(_is_verbatim(part) for part in get_args(kind) if not isinstance(part, str))


def check_value(kind: Any, value: object) -> object:
    """Return `value` read as `kind`.

    Args:
        kind: A type annotation.
        value: Text from a command line, or a Python value. Paths become text, tuples become
            lists, numbers of other libraries become Python numbers.

    Raises:
        ValueError: The value is not of that kind.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(cast("os.PathLike[str]", value))
    if isinstance(value, str):
        value = value.strip()
        if not _is_verbatim(kind):
            value = parse_value(value)
        elif value.lower() == "none":
            value = None
    if isinstance(value, tuple):
        value = list(cast("tuple[object, ...]", value))
    if isinstance(value, numbers.Real) and not isinstance(value, bool | int | float):
        value = int(value) if isinstance(value, numbers.Integral) else float(value)
    checker = TypeAdapter[Any](kind, config=ConfigDict(strict=True, allow_inf_nan=False))
    return checker.validate_python(value)  # pydantic's ValidationError is a ValueError


def is_none(value: object) -> bool:
    """Whether an argument's value says that it is not given."""
    return value is None or (isinstance(value, str) and value.strip().lower() == "none")


def shown(name: str, value: object) -> str:
    """`name=value` as errors repeat it, shortened."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return f"{name}={text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + '…'}"


def _whole(value: object) -> object:
    """1e2 is a whole number, as Ultralytics reads it."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value


def _as_list(value: object) -> object:
    """One comma-separated text becomes a list, `0,1` arriving as a tuple already is one."""
    if isinstance(value, str) and "," in value:
        return [parse_value(part) for part in value.split(",") if part.strip()]
    return value


def _listed(value: int | list[int]) -> list[int]:
    """One number is a list of one, as Ultralytics has it in training."""
    return [value] if isinstance(value, int) else value


def _devices(value: object) -> object:
    if type(value).__name__ == "device":  # torch.device, without importing torch
        value = str(value)
    value = _as_list(value)
    if isinstance(value, list) and len(cast("list[object]", value)) == 1:
        value = cast("list[object]", value)[0]
    return value


def _as_text(value: object) -> object:
    """A run may be named 2026, which YAML and Python give as a number."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _is_clean(value: str) -> str:
    """Text that a file name, a database and a JSON file can hold."""
    value.encode("utf-8")  # a word of the command line may hold bytes that are no text
    if "\0" in value:
        raise ValueError("NUL")
    return value


def _spelled(value: object) -> object:
    """Optimizer names in any case, as Ultralytics takes them."""
    known = {name.lower(): name for name in OPTIMIZERS}
    return known.get(value.lower(), value) if isinstance(value, str) else value


def _min_below_max(value: list[float]) -> list[float]:
    if value[0] > value[1]:
        raise ValueError("wrong order")
    return value


Flag = bool
_Clean = Annotated[
    str, BeforeValidator(_as_text), Field(min_length=1), AfterValidator(_is_clean), Verbatim()
]
Text = Annotated[_Clean, Expected("text in UTF-8")]
Path = Annotated[_Clean, Expected("a path in UTF-8")]
Fraction = Annotated[float, Field(ge=0, le=1), Expected("a number from 0 to 1", example="0.5")]
Rate = Annotated[
    float,
    Field(gt=0, le=1),
    Expected("a number > 0, at most 1: at 0 nothing would be learned", example="0.01"),
]
Gain = Annotated[float, Field(ge=0), Expected("a number >= 0", example="1")]
PositiveNumber = Annotated[float, Field(gt=0), Expected("a number > 0", example="8")]
OpenFraction = Annotated[
    float, Field(gt=0, lt=1), Expected("a number strictly between 0 and 1", example="1e-5")
]
Decay = Annotated[
    float, Field(gt=0, lt=1), Expected("a number strictly between 0 and 1", example="0.9")
]
Angle = Annotated[
    float, Field(ge=0, le=180), Expected("an angle from 0 to 180 degrees", example="10")
]
NoiseMultiplier = Annotated[
    float, Field(ge=0, le=MAX_NOISE), Expected(f"a number from 0 to {MAX_NOISE:,}", example="1.2")
]
Zoom = Annotated[
    int,
    BeforeValidator(_whole),
    Field(ge=1, le=LARGEST_ZOOM),
    Expected(f"a whole number from 1 to {LARGEST_ZOOM}", example="2"),
]
Views = Annotated[
    int,
    BeforeValidator(_whole),
    Field(ge=1, le=MAX_VIEWS),
    Expected(f"a whole number from 1 to {MAX_VIEWS}", example="2"),
]
Count = Annotated[
    int,
    BeforeValidator(_whole),
    Field(ge=1, le=MAX_COUNT),
    Expected(f"a whole number >= 1, at most {MAX_COUNT:,}", example="100"),
]
CountOrZero = Annotated[
    int, BeforeValidator(_whole), Field(ge=0), Expected("a whole number >= 0", example="0")
]
Pixels = Annotated[
    int,
    BeforeValidator(_whole),
    Field(ge=32),
    Expected("a whole number of pixels >= 32", example="640"),
]
CheckpointPeriod = Annotated[
    int, BeforeValidator(_whole), Field(ge=-1), Expected("a whole number of epochs, or -1")
]
Scale = Annotated[
    Annotated[float, Field(ge=0, le=1)]
    | Annotated[
        list[Annotated[float, Field(gt=0)]],
        Field(min_length=2, max_length=2),
        AfterValidator(_min_below_max),
    ],
    BeforeValidator(_as_list),
    Expected("a number from 0 to 1, or two numbers [min, max]"),
]
Freeze = Annotated[
    Annotated[int, Field(ge=0)]
    | Annotated[list[Annotated[int, Field(ge=0)] | str], Field(min_length=1)],
    BeforeValidator(_as_list),
    Expected("a number of layers, or a list of layers such as [0,1] or [23.cv2]"),
]
Classes = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)],
    BeforeValidator(_as_list),
    AfterValidator(_listed),
    Expected("a class number, or a list of them such as [0,2]"),
]
_OneDevice = Annotated[int, Field(ge=-1)] | Annotated[str, Field(min_length=1)]
Device = Annotated[
    _OneDevice | Annotated[list[_OneDevice], Field(min_length=2)],
    BeforeValidator(_devices),
    Expected("a device, such as cpu, 0 or mps, or several for a process each, such as 0,1"),
]
Optimizer = Annotated[
    Literal[OPTIMIZERS],
    BeforeValidator(_spelled),
    Expected(f"one of {', '.join(OPTIMIZERS)}", example="auto"),
]
Policy = Literal["randaugment", "augmix", "autoaugment"]
PathOrFlag = Annotated[
    bool | Annotated[str, Field(min_length=1), AfterValidator(_is_clean)],
    Expected("True, False or a path in UTF-8"),
]
