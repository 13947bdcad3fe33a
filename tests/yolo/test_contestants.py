"""A contestant in a process of its own: its errors are told, and it ends with who asked for it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from discreet.comparing import Contestant, Measured
from discreet.yolo import contestants


class UnreadableError(Exception):
    """Cannot be made again of what it tells."""

    def __init__(self, *, only: str) -> None:
        super().__init__(only)


def failing(_: Any) -> Measured:
    raise UnreadableError(only="no such kernel")


def failed(job: Any) -> None:
    """In the contestant's process: fail in a way of its own."""
    contestants._measure_private = failing
    _MEASURE(job)


def test_an_error_of_any_kind_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = contestants.Job(
        contestant=Contestant(kind="twin"), arguments={}, stock_epochs=1, run_id="0" * 32,
        folder=tmp_path / "twin",
    )  # fmt: skip
    monkeypatch.setattr(contestants, "_measure", failed)
    with pytest.raises(RuntimeError, match="UnreadableError: no such kernel"):
        contestants.in_a_process(job)


def patiently(job: Any) -> None:
    """In the contestant's process: measure until it is told to end."""

    def measure(job: Any) -> Measured:
        (job.folder / "begun").write_text(str(os.getpid()))
        try:
            time.sleep(20)
        except KeyboardInterrupt:
            time.sleep(0.5)  # what it does to end in order, which nothing may break off
            (job.folder.parent / "ended").touch()
            raise
        raise AssertionError("nobody told it to end")

    contestants._measure_private = measure
    _MEASURE(job)


_MEASURE = contestants._measure


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_an_interruption_ends_the_contestant_in_order_and_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    job = contestants.Job(
        contestant=Contestant(kind="twin"), arguments={}, stock_epochs=1, run_id="0" * 32,
        folder=tmp_path / "twin",
    )  # fmt: skip
    monkeypatch.setattr(contestants, "_measure", patiently)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background: ignored

    def interrupt() -> None:
        begun = job.folder / "begun"
        while not begun.exists() or not begun.read_text():
            time.sleep(0.05)
        os.kill(int(begun.read_text()), number)  # as a terminal or a batch system tells all
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            contestants.in_a_process(job)
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    assert (tmp_path / "ended").exists()


def measure_patiently(job: Any) -> None:
    contestants._measure = patiently
    contestants.in_a_process(job)


@pytest.mark.slow
def test_a_contestant_ends_with_the_comparison_that_was_killed(tmp_path: Path) -> None:
    job = contestants.Job(
        contestant=Contestant(kind="twin"), arguments={}, stock_epochs=1, run_id="0" * 32,
        folder=tmp_path / "twin",
    )  # fmt: skip
    comparison = multiprocessing.get_context("spawn").Process(target=measure_patiently, args=(job,))
    comparison.start()
    deadline = time.monotonic() + 60
    while not (job.folder / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    comparison.kill()
    deadline = time.monotonic() + 15
    while not (tmp_path / "ended").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (tmp_path / "ended").exists()
