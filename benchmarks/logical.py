"""What a logical step costs beside the gradients, and whether its size matters.

    python -m benchmarks.logical            YOLOv8n on this machine's CPU
    python -m benchmarks.logical --json FILE

A logical step is summed over micro-batches. Noise, sampling and the ledger's charge are paid once
a step; the time of an image and the peak memory must not depend on how many images were drawn.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.contestants import Case, prepared
from benchmarks.machine import describe, resident_peak
from discreet.accounting.events import PoissonSampledGaussian
from discreet.clipping import FlatClipping
from discreet.gradients import make_engine
from discreet.ledger import RunLedger
from discreet.noise import GaussianMechanism
from discreet.randomness import SecureSource
from discreet.sampling import PoissonSampler
from discreet.step import sum_clipped

MICRO_BATCH = 16
SMALL, LARGE = 256, 8192
EXAMPLES = 100_000
STEP = 1024


def gradients(imgsz: int) -> Callable[[int], None]:
    """A function that sums the clipped gradients of so many images."""
    case = Case(model="yolov8n.yaml", imgsz=imgsz, batch=MICRO_BATCH, device="cpu")
    model, parameters, loss = prepared(case, "all")
    engine, batch = make_engine("discreet", model, parameters), case.images()

    def run(images: int) -> None:
        sum_clipped(
            range(images // MICRO_BATCH),
            parameters=parameters,
            gradients_of=lambda _: engine.per_example_gradients(
                lambda: loss(model(batch["img"]), batch).sum(1)
            ),
            clipping=FlatClipping(max_grad_norm=1.0),
        )

    return run


def flatness(imgsz: int, rounds: int) -> dict[str, Any]:
    """Seconds of an image in small steps and in a large one, in turn; peaks after each."""
    run = gradients(imgsz)
    run(4 * MICRO_BATCH)
    seconds: dict[int, list[float]] = {SMALL: [], LARGE: []}
    peaks: list[float] = []
    for _ in range(rounds):
        # Small steps before and after the large one, so that a drifting machine meets both.
        for size in (*[SMALL] * 4, LARGE, *[SMALL] * 4):
            began = time.perf_counter()
            run(size)
            seconds[size].append((time.perf_counter() - began) / size)
            peaks.append(resident_peak())
    small, large = (statistics.median(seconds[size]) for size in (SMALL, LARGE))
    return {
        "imgsz": imgsz,
        "seconds_per_image_256": small,
        "seconds_per_image_8192": large,
        "ratio": large / small,
        "peak_mib_256": peaks[3],
        "peak_mib_8192": peaks[4],
    }


def mechanism(imgsz: int) -> dict[str, Any]:
    """Seconds of noise, sampling and charge, and their share of a step."""
    case = Case(model="yolov8n.yaml", imgsz=imgsz, batch=MICRO_BATCH, device="cpu")
    _, parameters, _ = prepared(case, "all")
    clipped = sum_clipped(
        (), parameters=parameters, gradients_of=_never, clipping=FlatClipping(max_grad_norm=1.0)
    )
    source, noise = SecureSource(), GaussianMechanism(noise_multiplier=1.0)
    sampler = PoissonSampler(population=EXAMPLES, sample_rate=STEP / EXAMPLES)
    event = PoissonSampledGaussian(noise_multiplier=1.0, sample_rate=STEP / EXAMPLES, steps=1)
    with tempfile.TemporaryDirectory() as folder:
        ledger = RunLedger(Path(folder) / "ledger.jsonl", new=True)
        found = {
            "noise": _seconds(lambda: noise.privatise(clipped, source)),
            "sampling": _seconds(lambda: sampler.draw(source.stream())),
            "charge": _seconds(lambda: ledger.charge(event)),
        }
    run = gradients(imgsz)
    run(4 * MICRO_BATCH)
    step = STEP / 128 * _seconds(lambda: run(128), times=3)
    return {"imgsz": imgsz, **found, "step": step, "share": sum(found.values()) / step}


def _never(_: object) -> Any:
    raise AssertionError


def _seconds(work: Callable[[], object], times: int = 5) -> float:
    seconds: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--imgsz", type=int, default=96, help="of the flatness measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    logging.getLogger("ultralytics").setLevel(logging.WARNING)
    machine = describe(torch.device("cpu"))
    console = Console(width=100)
    console.print("  ".join(f"{name} {value}" for name, value in machine.items()))
    # First: later work of the same process would hide what its memory does.
    flat = flatness(arguments.imgsz, arguments.rounds)
    console.print(
        f"{flat['imgsz']} px: {1e3 * flat['seconds_per_image_256']:.2f} ms an image in steps of "
        f"{SMALL}, {1e3 * flat['seconds_per_image_8192']:.2f} in one of {LARGE}: "
        f"ratio {flat['ratio']:.3f}; peak {flat['peak_mib_256']:.0f} MiB, then "
        f"{flat['peak_mib_8192']:.0f}"
    )
    shares = [mechanism(imgsz) for imgsz in (160, 320)]
    for row in shares:
        console.print(
            f"{row['imgsz']} px, step of {STEP}: {row['step']:.1f} s; noise {row['noise']:.3f} s, "
            f"sampling {row['sampling']:.4f} s, charge {row['charge']:.4f} s: {row['share']:.2%}"
        )
    if arguments.json:
        content = {"machine": machine, "shares": shares, "flatness": flat}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
