from __future__ import annotations

import io
import math
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discreet.terminal import (
    Reporter,
    RichReporter,
    SilentReporter,
    epoch_line,
    format_delta,
    format_epsilon,
    printable,
)


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def whole_run(reporter: Reporter) -> None:
    reporter.stage("reading 292 images")
    for done in range(1, 293):
        reporter.stage_progress(done, 292)
    reporter.notice("3 images have no objects [bold]")
    reporter.plan([("images", "292"), ("noise multiplier", "1.23")], ["too small"])
    reporter.start(60)
    for step in range(1, 61):
        reporter.step(step, 8 * step / 61)
        if step % 20 == 0:
            reporter.epoch(
                epoch=step // 20, epochs=3, epsilon=8 * step / 61, target=8, extra="2.1 s"
            )
    reporter.finish(epsilon=7.9791, delta=1e-4, release="runs/private/train/release")
    reporter.close()
    reporter.close()


def test_a_file_gets_one_line_per_epoch_and_no_control_characters() -> None:
    stream = io.StringIO()
    whole_run(RichReporter(stream))
    assert stream.getvalue().splitlines() == [
        "reading 292 images",
        "3 images have no objects [bold]",
        "  images            292",
        "  noise multiplier  1.23",
        "warning: too small",
        "epoch 1/3  ε = 2.63 of 8.00  2.1 s",
        "epoch 2/3  ε = 5.25 of 8.00  2.1 s",
        "epoch 3/3  ε = 7.87 of 8.00  2.1 s",
        "this training spent ε = 7.98 at δ = 1e-04",
        "release: runs/private/train/release",
    ]


def test_a_terminal_gets_a_bar_and_the_same_lines() -> None:
    stream = Terminal()
    whole_run(RichReporter(stream))
    text = stream.getvalue()
    assert "\x1b[?25l" in text and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert "60/60" in text and "ε = 7.87" in text
    assert "epoch 3/3  ε = 7.87 of 8.00  2.1 s" in text
    assert "this training spent ε = 7.98 at δ = 1e-04" in text
    assert "no objects [bold]" in text  # no markup from data


def test_the_bar_keeps_the_last_known_epsilon() -> None:
    stream = Terminal()
    reporter = RichReporter(stream)
    reporter.start(4)
    reporter.step(1)
    reporter.epoch(epoch=1, epochs=2, epsilon=3.42, target=8)
    reporter.step(2)
    shown = len(stream.getvalue())
    reporter.close()
    assert "ε = 3.42" in stream.getvalue()[shown:]


def test_silence() -> None:
    whole_run(SilentReporter())


def test_long_plan_values_wrap_and_paths_do_not() -> None:
    stream = io.StringIO()
    path = "/folder" * 20
    RichReporter(stream).plan([("data", "word " * 40), ("path", path)], ["long " * 40])
    lines = stream.getvalue().splitlines()
    assert max(len(line) for line in lines if path not in line) <= 80
    assert f"  path  {path}" in lines


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    RichReporter().notice("here")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "here\n")


def test_control_characters_of_file_names_do_not_reach_the_terminal() -> None:
    stream = io.StringIO()
    RichReporter(stream).warning("\x1b[2Jevil\r\x07.jpg\nsecond line")
    assert stream.getvalue() == "warning: ?[2Jevil??.jpg\nsecond line\n"


def test_streams_without_greek_letters() -> None:
    raw = io.BytesIO()
    reporter = RichReporter(io.TextIOWrapper(raw, encoding="ascii"))
    reporter.finish(epsilon=1, delta=1e-5, release="r")
    assert raw.getvalue() == b"this training spent ? = 1.00 at ? = 1e-05\nrelease: r\n"
    assert printable("ε", None) == "ε"


class Broken(io.StringIO):
    def __init__(self, error: Callable[[], Exception]) -> None:
        super().__init__()
        self.error, self.writes = error, 0

    def write(self, text: str, /) -> int:
        self.writes += 1
        raise self.error()


class BrokenTerminal(Broken):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [Broken, BrokenTerminal])
@pytest.mark.parametrize(
    "error", [BrokenPipeError, lambda: OSError(28, "disk full"), lambda: ValueError("closed")]
)
def test_a_broken_output_never_ends_a_run(
    kind: type[Broken], error: Callable[[], Exception]
) -> None:
    stream = kind(error)
    whole_run(RichReporter(stream))
    assert stream.writes >= 1
    if kind is Broken:
        assert stream.writes == 1  # silent for good


def test_a_reader_that_leaves_does_not_end_the_run() -> None:
    script = (
        "import sys, time\n"
        "from discreet.terminal import RichReporter\n"
        "reporter = RichReporter(sys.stdout)\n"
        "for epoch in range(200):\n"
        "    reporter.epoch(epoch=epoch, epochs=200, epsilon=1.0, target=None)\n"
        "    time.sleep(0.001)\n"
        "sys.stderr.write('finished')\n"
        "sys.stderr.flush()\n"
        "sys.stdout = None\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read().startswith("finished")
    process.stderr.close()
    process.wait(timeout=30)


# ---- numbers ----


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [
        (3.42, "3.42"),
        (7.9791, "7.98"),
        (7.98, "7.98"),
        (7.9991, "8.00"),
        (8.0, "8.00"),
        (8, "8.00"),
        (8.0000001, "8.01"),
        (0.0, "0.00"),
        (1e-9, "1.0e-09"),
        (1.23e-4, "1.3e-04"),
        (0.00999, "1.0e-02"),
        (0.01, "0.01"),
        (0.0100001, "0.02"),
        (69.4601, "69.47"),
        (123456.789, "123456.79"),
        (12345678.9, "1.24e+7"),
        (1e300, "1.00e+300"),
        (math.inf, "∞"),
    ],
)
def test_epsilon_is_rounded_up(epsilon: float, text: str) -> None:
    assert format_epsilon(epsilon) == text


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_a_printed_epsilon_is_never_below_the_true_one(epsilon: float) -> None:
    assert float(format_epsilon(epsilon)) >= epsilon


@given(st.floats(min_value=0, max_value=1e5), st.decimals(0, 100, places=2))
def test_an_epsilon_under_its_target_never_prints_above_it(epsilon: float, target: object) -> None:
    bound = float(str(target))
    assert float(format_epsilon(min(epsilon, bound))) <= float(format_epsilon(bound))
    assert format_epsilon(bound) == f"{bound:.2f}"


@pytest.mark.parametrize(
    ("delta", "text"),
    [(1e-4, "1e-04"), (1e-5, "1e-05"), (2.5e-5, "2.5e-05"), (0.001, "1e-03")],
)
def test_delta_keeps_its_digits(delta: float, text: str) -> None:
    assert format_delta(delta) == text


@given(st.floats(min_value=1e-300, max_value=1, exclude_max=True))
def test_a_printed_delta_is_the_true_one(delta: float) -> None:
    assert float(format_delta(delta)) == delta


@pytest.mark.parametrize(
    ("epsilon", "target", "extra", "line"),
    [
        (3.42, 8.0, "", "epoch 7/20  ε = 3.42 of 8.00"),
        (3.42, 8.0, "12 s", "epoch 7/20  ε = 3.42 of 8.00  12 s"),
        (3.42, None, "", "epoch 7/20  ε = 3.42"),
        (math.inf, None, "", "epoch 7/20  ε = ∞"),
        (None, None, "", "epoch 7/20"),
    ],
)
def test_epoch_lines(epsilon: float | None, target: float | None, extra: str, line: str) -> None:
    assert epoch_line(epoch=7, epochs=20, epsilon=epsilon, target=target, extra=extra) == line


def test_long_words_of_warning_stay_within_the_page_but_paths_stay_whole() -> None:
    stream, path = io.StringIO(), "/data/" + "x" * 100
    reporter = RichReporter(stream)
    reporter.warning("word " * 30 + path)
    reporter.notice("word " * 30)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("warning: word") and path in map(str.strip, lines)
    assert all(len(line) <= 80 for line in lines if path not in line)
