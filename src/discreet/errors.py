"""The error tree: every error says what is wrong, where, and what to do.

DiscreetError                 base; the command line exits with status 2
├── ConfigurationError        an argument, or a combination of arguments
│   └── UnsafeArgumentError   an argument that would void the guarantee
├── DatasetError              the data set; carries every problem found
├── ModelError                weights, architecture, layers
│   └── UnsupportedLayerError a layer without a per-example gradient rule
├── AccountingError           an event or target that cannot be accounted
├── CheckError                the step does not keep images apart; carries every finding
├── ReleaseError              a release that must not leave, or is not what it says
├── LedgerError               the record of what was spent
│   └── BudgetError           a data set's budget would be crossed
├── StorageError              the disk: unwritable, full, torn
└── TeamError                 other processes of a run or a comparison: lost, different
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

MAX_PROBLEMS_SHOWN = 20


# user:password@ after ://, to the last @ of the word: a password may hold anything.
_PASSWORD = re.compile(r"(://[^\s:/@]*):\S*@")


class DiscreetError(Exception):
    """Base of all errors that a user can mend.

    Args:
        what: What is wrong, in one sentence.
        where: The file, line, key or layer, if there is one.
        do: What to do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, do: str | None = None) -> None:
        what = without_password(what)
        self.what, self.where = what, where and without_password(where)
        self.do = do and without_password(do)
        super().__init__(what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.do}" if self.do else text


def without_password(text: str) -> str:
    """The same with the password of every address in it replaced by stars."""
    return _PASSWORD.sub(r"\1:***@", text)


class ConfigurationError(DiscreetError, ValueError):
    """An argument is wrong, missing, unknown or contradicts another."""


class UnsafeArgumentError(ConfigurationError):
    """An argument would void the guarantee and is refused."""


class _ListingError(DiscreetError):
    """An error that carries several problems.

    Args:
        what: Summary in one sentence.
        problems: One line each.
        where: The file, or the part of the model.
        do: What to do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        problems: Sequence[str] = (),
        where: str | None = None,
        do: str | None = None,
    ) -> None:
        self.problems = tuple(problems)
        super().__init__(what, where=where, do=do)

    def __str__(self) -> str:
        shown = [f"  {problem}" for problem in self.problems[:MAX_PROBLEMS_SHOWN]]
        hidden = len(self.problems) - len(shown)
        if hidden > 0:
            shown.append(f"  … and {hidden} more")
        head = f"{self.where}: {self.what}" if self.where else self.what
        return "\n".join([head, *shown, *([f"  {self.do}"] if self.do else [])])


class DatasetError(_ListingError, ValueError):
    """The data set cannot be trained on; all problems are reported together.

    Its problems read `file:line: what is wrong`, and `where` is the data set file.
    """


class CheckError(_ListingError, RuntimeError):
    """The step couples privacy units, or leaves something without noise.

    Its problems name the module, loss term or parameter.
    """


class ModelError(DiscreetError, ValueError):
    """The model or its weights cannot be trained privately."""


class UnsupportedLayerError(ModelError):
    """A trainable layer has no exact per-example gradient rule."""


class AccountingError(DiscreetError, ValueError):
    """An event has no accounting, or a target cannot be reached."""


class ReleaseError(_ListingError, ValueError):
    """A release holds what it must not, or is not what it says; all of it is reported.

    Attributes:
        facts: What else `--json` tells.
    """

    facts: Mapping[str, object] = MappingProxyType({})


class LedgerError(DiscreetError, RuntimeError):
    """The record of what was spent cannot be written or does not add up."""


class BudgetError(LedgerError):
    """A data set's budget leaves no room: nothing was charged, and nothing may run.

    Args:
        what: The budget, what is spent and what is reserved.
        where: The ledger.
        do: What to do about it.
        fitting_steps: How many steps of what was asked for would still fit; None where that
            was not worked out.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        do: str | None = None,
        fitting_steps: int | None = None,
    ) -> None:
        self.fitting_steps = fitting_steps
        super().__init__(what, where=where, do=do)


class StorageError(DiscreetError, OSError):
    """A file or folder cannot be written or read back."""


class TeamError(DiscreetError, RuntimeError):
    """The other processes of a run have failed, cannot be reached, or run something else."""
