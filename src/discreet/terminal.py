"""What a run tells the person who started it.

A `Reporter` receives plain data; how it looks is decided here. On a terminal there is a bar with
the time left and the ε so far; in a file there is one line per epoch and no control characters.
Telling must never end a run whose budget is spent: an output that breaks falls silent.
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Context, Decimal
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:  # rich is imported late: files, pipes and --help do not need it
    from rich.console import Console
    from rich.progress import Progress, TaskID

WIDTH = 80  # columns of plain output
SMALL_EPSILON = 0.01  # below, two decimals would not tell one from another
REFRESHES_PER_SECOND = 4


def format_epsilon(epsilon: float) -> str:
    """ε with two decimals, rounded up: what is printed is never below the true value.

    Where these would be 0.01 for whatever is smaller, it has two digits and a power of ten.
    """
    epsilon = float(epsilon)
    if math.isinf(epsilon):
        return "∞"
    exact = Decimal(repr(epsilon))  # the shortest decimal of this float: 7.98 stays 7.98
    if 0 < epsilon < SMALL_EPSILON:
        return small_number(epsilon, digits=2)
    if abs(epsilon) < 1e6:
        return str(exact.quantize(Decimal("0.01"), rounding=ROUND_CEILING))
    return f"{Context(prec=3, rounding=ROUND_CEILING).create_decimal(exact):.2e}"


def small_number(value: float, *, digits: int) -> str:
    """A positive number with so many digits and a power of ten, rounded up: 1.0e-09."""
    up = Context(prec=digits, rounding=ROUND_CEILING).create_decimal(Decimal(repr(float(value))))
    mantissa, power = f"{up:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(power):03d}"


def format_delta(delta: float) -> str:
    """δ in scientific notation with the fewest digits that do not change it: 1e-04."""
    candidates = (f"{delta:.{digits}e}" for digits in range(17))
    return next((text for text in candidates if float(text) == delta), repr(delta))


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 image, 2 images."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str, encoding: str | None) -> str:
    """Text that a stream can show: no control characters (file names may hold some).

    Args:
        text: Any text; line breaks are kept.
        encoding: The stream's encoding; some have no ε, which becomes a question mark.
    """
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    encoding = encoding or "utf-8"
    return text.encode(encoding, errors="replace").decode(encoding)


def epoch_line(
    *, epoch: int, epochs: int, epsilon: float | None, target: float | None, extra: str = ""
) -> str:
    """`epoch 7/20  ε = 3.42 of 8.00  …`; without a target, only the ε so far."""
    parts = [f"epoch {epoch}/{epochs}"]
    if epsilon is not None:
        of_target = f" of {format_epsilon(target)}" if target is not None else ""
        parts.append(f"ε = {format_epsilon(epsilon)}{of_target}")
    return "  ".join([*parts, *([extra] if extra else [])])


class Reporter(Protocol):
    """Receives what happens in a run, as plain data."""

    def notice(self, text: str) -> None:
        """Something worth knowing."""
        ...

    def warning(self, text: str) -> None:
        """Something that the user should act on, though the run goes on."""
        ...

    def stage(self, text: str) -> None:
        """A part of the preparation begins, such as "reading 292 images"."""
        ...

    def stage_progress(self, done: int, total: int) -> None:
        """How far the present stage is."""
        ...

    def plan(self, rows: Sequence[tuple[str, str]], warnings: Sequence[str] = ()) -> None:
        """What will run, before anything is spent: a short table, then plain warnings."""
        ...

    def start(self, total_steps: int) -> None:
        """Training begins."""
        ...

    def step(self, done: int, epsilon: float | None = None) -> None:
        """Steps done so far, and the ε spent by them where it is known."""
        ...

    def epoch(
        self,
        *,
        epoch: int,
        epochs: int,
        epsilon: float | None,
        target: float | None,
        extra: str = "",
    ) -> None:
        """An epoch has ended; `extra` is appended to its line."""
        ...

    def finish(
        self, *, epsilon: float, delta: float, release: str, spender: str = "this training"
    ) -> None:
        """The run has ended: who spent what, and the folder that may leave the building."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was, also after an error; harmless when repeated."""
        ...


class SilentReporter:
    """Says nothing."""

    def notice(self, text: str) -> None:
        """Say nothing."""

    def warning(self, text: str) -> None:
        """Say nothing."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def stage_progress(self, done: int, total: int) -> None:
        """Say nothing."""

    def plan(self, rows: Sequence[tuple[str, str]], warnings: Sequence[str] = ()) -> None:
        """Say nothing."""

    def start(self, total_steps: int) -> None:
        """Say nothing."""

    def step(self, done: int, epsilon: float | None = None) -> None:
        """Say nothing."""

    def epoch(
        self,
        *,
        epoch: int,
        epochs: int,
        epsilon: float | None,
        target: float | None,
        extra: str = "",
    ) -> None:
        """Say nothing."""

    def finish(
        self, *, epsilon: float, delta: float, release: str, spender: str = "this training"
    ) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Say nothing."""


class RichReporter:
    """Reports on a terminal with a progress bar, or as plain lines into a file or pipe.

    Args:
        stream: Where to write; standard error if not given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._console = _console_on(self._stream) if self._stream.isatty() else None
        self._bar: tuple[Progress, TaskID] | None = None
        self._broken = False

    def notice(self, text: str) -> None:
        """Print it."""
        self._lines(_filled(self._printable(text)))

    def warning(self, text: str) -> None:
        """Print it, marked as a warning."""
        self._lines(_filled(self._printable(f"warning: {text}")), style="yellow")

    def stage(self, text: str) -> None:
        """Print what begins; on a terminal, a bar follows once progress is known."""
        self._end_bar()
        self._lines(text)

    def stage_progress(self, done: int, total: int) -> None:
        """Move the stage's bar; nothing in a file."""
        if self._bar is None:
            self._begin_bar("", total)
        self._update(completed=done)
        if done >= total:
            self._end_bar()

    def plan(self, rows: Sequence[tuple[str, str]], warnings: Sequence[str] = ()) -> None:
        """Print the table, and every warning below it."""
        self._end_bar()
        indent = max((len(name) for name, _ in rows), default=0) + 4
        for name, value in rows:
            self._lines(
                textwrap.fill(
                    value,
                    width=WIDTH,
                    initial_indent=f"  {name}".ljust(indent),
                    subsequent_indent=" " * indent,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
        for text in warnings:
            self.warning(text)

    def start(self, total_steps: int) -> None:
        """Show the bar of the training; nothing in a file."""
        self._end_bar()
        self._begin_bar("step ", total_steps)

    def step(self, done: int, epsilon: float | None = None) -> None:
        """Move the bar; nothing in a file. An ε once told stays until the next one."""
        self._update(completed=done)
        self._show_epsilon(epsilon)

    def epoch(
        self,
        *,
        epoch: int,
        epochs: int,
        epsilon: float | None,
        target: float | None,
        extra: str = "",
    ) -> None:
        """Print the epoch's line, above the bar."""
        self._lines(
            epoch_line(epoch=epoch, epochs=epochs, epsilon=epsilon, target=target, extra=extra)
        )
        self._show_epsilon(epsilon)

    def finish(
        self, *, epsilon: float, delta: float, release: str, spender: str = "this training"
    ) -> None:
        """Print what was spent, and the release's folder."""
        self._show_spent(epsilon, delta, spender=spender)
        self._lines(f"release: {release}")

    def close(self) -> None:
        """Take down the bar."""
        self._end_bar()

    def _show_spent(self, epsilon: float, delta: float, *, spender: str) -> None:
        self._end_bar()
        spent = f"ε = {format_epsilon(epsilon)} at δ = {format_delta(delta)}"
        self._lines(f"{spender} spent {spent}", style="bold")

    def _lines(self, text: str, *, style: str | None = None) -> None:
        text = self._printable(text)
        console = self._console

        def write() -> None:
            if console is not None:
                console.print(text, style=style, soft_wrap=True)
            else:
                print(text, file=self._stream, flush=True)

        self._guarded(write)

    def _begin_bar(self, label: str, total: int) -> None:
        if self._console is not None:
            bar = _bar_on(self._console)
            self._bar = bar, bar.add_task(label, total=total, note="")
            self._guarded(bar.start)

    def _show_epsilon(self, epsilon: float | None) -> None:
        if epsilon is not None:
            self._update(note=self._printable(f"ε = {format_epsilon(epsilon)}"))

    def _update(self, **changes: Any) -> None:
        if self._bar is not None:
            bar, task = self._bar
            self._guarded(lambda: bar.update(task, **changes))

    def _end_bar(self) -> None:
        if self._bar is not None:
            bar, _ = self._bar
            self._bar = None
            self._guarded(bar.stop)

    def _printable(self, text: str) -> str:
        return printable(text, self._stream.encoding)

    def _guarded(self, write: Callable[[], None]) -> None:
        """Write, and fall silent for good if the other end is gone or the disk is full."""
        if self._broken:
            return
        try:
            write()
        except (OSError, ValueError):  # ValueError: the stream is closed
            self._broken = True


def _filled(text: str) -> str:
    """Lines of `WIDTH` columns; a path is never torn, so that it can be copied."""
    whole = textwrap.TextWrapper(
        width=WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(map(whole.fill, text.split("\n")))


def _console_on(stream: TextIO) -> Console:
    from rich.console import Console

    class SteadyConsole(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True  # rich would exit the process, and the budget be spent for nothing

    return SteadyConsole(file=stream, highlight=False, markup=False)


def _bar_on(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}{task.completed}/{task.total}"),
        BarColumn(bar_width=24),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        refresh_per_second=REFRESHES_PER_SECOND,
        transient=True,
    )
