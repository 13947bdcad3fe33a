"""What all parts of a record's form have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_LONGEST = 400


class Part(BaseModel):
    """A closed form: no unknown key, no infinite number, no value of another type."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        # The shipped schema explains each field in the words of these classes.
        use_attribute_docstrings=True,
    )


def _printable(text: str) -> str:
    """Text that shows what it is: no control characters, none that turn the line around."""
    if not text.isprintable():
        raise ValueError("a character that cannot be printed")
    return text


Words = Annotated[str, Field(max_length=_LONGEST), AfterValidator(_printable)]
"""One line of text."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
"""128 bits in hexadecimal digits."""
MOST_STEPS = 1_000_000_000
Count = Annotated[int, Field(ge=0, le=MOST_STEPS)]
CountFromOne = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Delta = Annotated[float, Field(gt=0, lt=1)]
