"""How much slower and larger a private step is than a stock one.

    python -m benchmarks.step                 every size of the table on this machine's CPU
    python -m benchmarks.step --quick         stock and this engine, YOLOv8n, 320 px, batch 8
    python -m benchmarks.step --imgsz 160 --batch 16 --model yolov8n.yaml     one size
    python -m benchmarks.step --device cuda   the GPU's sizes, bfloat16
    python -m benchmarks.step --json FILE     the rows, for machines

Times are paired: every contestant takes its turn in every round, so that a machine whose speed
drifts slows all of them. Peak memory is that of a whole process, one for each contestant.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.contestants import ALL, CONTESTANTS, OWN, QUICKEST, Case, Step
from benchmarks.machine import describe, resident_peak

CPU = (
    ("yolov8n.yaml", 160, 16),
    ("yolov8n.yaml", 320, 8),
    ("yolov8n.yaml", 640, 4),
    ("yolov8m.yaml", 320, 4),
)
GPU = (("yolov8n.yaml", 640, 64), ("yolov8x.yaml", 640, 16))
QUICK = (("yolov8n.yaml", 320, 8),)
ROUNDS = 8
# After a first step each: the engine's second pass measures which methods are fastest.
WARM_UP, QUICK_WARM_UP = 2, 1
MEMORY_STEPS = 2  # from the second on, the engine holds the gradients that it can


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contestant at one size; ratios are to the stock step of the same round."""

    model: str
    engine: str
    trainable: str
    imgsz: int
    batch: int
    seconds_median: float
    seconds_min: float
    ratio_median: float
    ratio_min: float
    peak_mib: float
    peak_ratio: float


def timed(steps: Sequence[Step], *, rounds: int, warm_up: int, device: str) -> list[list[float]]:
    """Seconds of each contestant in each round, after warm-up rounds that do not count."""
    seconds: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + warm_up):
        for own, step in zip(seconds, steps, strict=True):
            began = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if number >= warm_up:
                own.append(time.perf_counter() - began)
    return seconds


def peak_memory(chosen: Sequence[int], case: Case) -> list[float]:
    """Peak memory in MiB of contestants' first steps, each in a process of its own."""
    tasks = [(index, case) for index in chosen]
    together = 1 if case.device == "cuda" else 2
    # Forked from a process that has only imported: each would take seconds to import again.
    context = multiprocessing.get_context("spawn" if case.device == "cuda" else "forkserver")
    context.set_forkserver_preload(["benchmarks.contestants"])
    with context.Pool(together, maxtasksperchild=1) as pool:
        return pool.map(_peak_here, tasks, chunksize=1)


def _peak_here(task: tuple[int, Case]) -> float:
    index, case = task
    torch.set_num_threads(1)  # two processes share the cores; memory hardly depends on it
    step = CONTESTANTS[index][2](case)
    for _ in range(MEMORY_STEPS):
        step()
    if case.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resident_peak()


def measure(
    case: Case, chosen: Sequence[int], *, rounds: int, memory: bool, warm_up: int = WARM_UP
) -> list[Row]:
    """All contestants at one size; one that fails is left out with a line on why."""
    steps: list[Step] = []
    running: list[int] = []
    for index in chosen:
        name, trainable, build = CONTESTANTS[index]
        try:
            step = build(case)
            step()
        except Exception as error:  # another library's limits are a result, not our failure
            print(f"  {name} ({trainable}) cannot run: {error}", file=sys.stderr)
            continue
        steps.append(step)
        running.append(index)
    seconds = timed(steps, rounds=rounds, warm_up=warm_up, device=case.device)
    steps.clear()
    peaks = peak_memory(running, case) if memory else [float("nan")] * len(running)
    rows: list[Row] = []
    for index, own, peak in zip(running, seconds, peaks, strict=True):
        ratios = [mine / base for mine, base in zip(own, seconds[0], strict=True)]
        rows.append(
            Row(
                model=Path(case.model).stem,
                engine=CONTESTANTS[index][0],
                trainable=CONTESTANTS[index][1],
                imgsz=case.imgsz,
                batch=case.batch,
                seconds_median=statistics.median(own),
                seconds_min=min(own),
                ratio_median=statistics.median(ratios),
                ratio_min=min(own) / min(seconds[0]),
                peak_mib=peak,
                peak_ratio=peak / peaks[0],
            )
        )
    return rows


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the rows as a table."""
    table = Table("model", "px", "batch", "engine", "trains", box=None, pad_edge=False)
    for heading in ("s median", "ratio", "ratio of minima", "peak MiB", "ratio"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.model, str(row.imgsz), str(row.batch), row.engine, row.trainable,
            f"{row.seconds_median:.3f}", f"{row.ratio_median:.2f}", f"{row.ratio_min:.2f}",
            f"{row.peak_mib:.0f}", f"{row.peak_ratio:.2f}",
        )  # fmt: skip
    console.print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help="YOLOv8n at 320 px, batch 8 only")
    parser.add_argument("--model", help="architecture or weights of a single size")
    parser.add_argument("--imgsz", type=int, help="side of a single size's images, pixels")
    parser.add_argument("--batch", type=int, help="images in a step of a single size")
    parser.add_argument("--own", action="store_true", help="leave other libraries out")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file")
    arguments = parser.parse_args(argv)
    logging.getLogger("ultralytics").setLevel(logging.WARNING)
    device = torch.device(arguments.device)
    sizes: tuple[Any, ...] = QUICK if arguments.quick else GPU if device.type == "cuda" else CPU
    single = (arguments.model, arguments.imgsz, arguments.batch)
    if any(single):
        sizes = (tuple(own or other for own, other in zip(single, QUICK[0], strict=True)),)
    names = OWN if arguments.own else QUICKEST if arguments.quick else ALL
    chosen = [i for i, (name, _, _) in enumerate(CONTESTANTS) if name in names]
    machine = describe(device)
    console = Console(width=100)
    console.print("  ".join(f"{name} {value}" for name, value in machine.items()))
    rows: list[Row] = []
    for model, imgsz, batch in sizes:
        case = Case(
            model=model, imgsz=imgsz, batch=batch, device=device.type, bf16=device.type == "cuda"
        )
        found = measure(
            case,
            chosen,
            rounds=arguments.rounds,
            memory=not arguments.no_memory,
            warm_up=QUICK_WARM_UP if arguments.quick else WARM_UP,
        )
        show(found, console)
        rows += found
    if arguments.json:
        content = {"machine": machine, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
