"""Problems and notices gathered while a data set is read, so that all are reported together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from discreet.errors import DatasetError
from discreet.terminal import count

EXAMPLES_SHOWN = 3


def printable(text: str) -> str:
    """Text with control characters and undecodable bytes escaped: file names may hold any."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "backslashreplace").decode()
        for character in text
    )


def examples(items: Sequence[str]) -> str:
    """The first few of many names, and that there are more."""
    more = ", …" if len(items) > EXAMPLES_SHOWN else ""
    return ", ".join(items[:EXAMPLES_SHOWN]) + more


@dataclass(kw_only=True)
class Findings:
    """What was found in one data set, as printable text whatever the files are called.

    Attributes:
        yaml: The data set file.
        root: Its folder with links resolved; paths below it are shown relative to it.
        subject: What is read: the data set, or groups of its images.
        problems: What stops the run, `file:line: what is wrong`.
        notices: What does not.
    """

    yaml: Path
    root: Path
    subject: str = "data set"
    problems: list[str] = field(default_factory=list[str])
    notices: list[str] = field(default_factory=list[str])

    def shown(self, path: Path, line: int | None = None, column: int | None = None) -> str:
        """A path as the user knows it, with line and column."""
        for root in (self.yaml.parent, self.root):
            if path.is_relative_to(root):
                path = path.relative_to(root)
                break
        numbers = [str(number) for number in (line, column) if number is not None]
        return ":".join([path.as_posix(), *numbers])

    def problem(
        self, path: Path, what: str, *, line: int | None = None, column: int | None = None
    ) -> None:
        """Record something that stops the run."""
        self.problems.append(printable(f"{self.shown(path, line, column)}: {what}"))

    def notice(self, what: str) -> None:
        """Record something that does not."""
        self.notices.append(printable(what))

    def refuse(self) -> None:
        """Raise all problems together, if there are any.

        Raises:
            DatasetError: With every problem found.
        """
        # Two images may share a label file, and with it its problems.
        if problems := list(dict.fromkeys(self.problems)):
            raise DatasetError(
                f"{count(len(problems), 'problem')} in the {self.subject}",
                problems=problems,
                where=str(self.yaml),
                do=f"Mend the {self.subject} and run again; nothing was written and nothing was "
                "spent.",
            )
