"""What a step of several processes spends on messages.

    python -m benchmarks.team               YOLOv8n, all parameters, 640 px, 2 processes of this CPU
    python -m benchmarks.team --batch 16    another expected batch
    torchrun … -m benchmarks.team           the same across hosts, or on GPUs

A message can only be told from waiting for a slower process if all begin it together. So each step
is timed twice: in full, and its messages by themselves, after a barrier.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.contestants import Case, prepared
from benchmarks.machine import describe
from discreet.clipping import FlatClipping
from discreet.distributed import Team, join_team
from discreet.gradients import make_engine
from discreet.launched import place_of_process
from discreet.noise import GaussianMechanism
from discreet.randomness import SecureSource
from discreet.step import private_step, sum_clipped

MICRO_BATCH = 4


def measure(team: Team, *, imgsz: int, batch: int, rounds: int, device: str) -> dict[str, Any]:
    """Median seconds of a step, and of the messages in it."""
    case = Case(model="yolov8n.yaml", imgsz=imgsz, batch=MICRO_BATCH, device=device)
    model, parameters, loss = prepared(case, "all")
    engine, images = make_engine("discreet", model, parameters), case.images()
    clipping = FlatClipping(max_grad_norm=1.0)
    optimizer = torch.optim.Adam(parameters.values(), lr=1e-6)

    def step(parts: int) -> None:
        private_step(
            range(parts),
            parameters=parameters,
            gradients_of=lambda _: engine.per_example_gradients(
                lambda: loss(model(images["img"]), images).sum(1)
            ),
            clipping=clipping,
            mechanism=GaussianMechanism(noise_multiplier=1.0),
            expected_batch_size=batch,
            source=SecureSource(),
            charge=lambda: None,
            optimizer=optimizer,
            team=team,
        )

    def messages() -> None:
        """What `private_step` and the trainer's loop send in a step, and nothing else."""
        team.total(nothing)
        team.publish(parameters.values(), 1.0)
        team.share([1.0, 1.0, 1.0])
        team.told(False)

    nothing = sum_clipped((), parameters=parameters, gradients_of=_never, clipping=clipping)
    parts = batch // team.place.size // MICRO_BATCH
    step(parts)  # the engine measures, the connections open
    messages()
    whole = [_seconds(lambda: step(parts), device) for _ in range(rounds)]
    sent = [_seconds(messages, device) for _ in range(4 * rounds)]
    numbers = sum(parameter.numel() for parameter in parameters.values())
    step_takes, messages_take = statistics.median(whole), statistics.median(sent)
    return {
        "processes": team.place.size,
        "imgsz": imgsz,
        "batch": parts * MICRO_BATCH * team.place.size,
        "parameters": numbers,
        "step": step_takes,
        "messages": messages_take,
        "share": messages_take / step_takes,
    }


def _never(_: object) -> Any:
    raise AssertionError


def _seconds(work: Callable[[], object], device: str) -> float:
    dist.barrier()
    began = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    place = place_of_process()
    if place.size == 1:
        words = sys.argv[1:] if argv is None else argv
        started = ["torch.distributed.run", "--nproc-per-node", "2", "-m", "benchmarks.team"]
        return subprocess.run([sys.executable, "-m", *started, *words], check=False).returncode
    logging.getLogger("ultralytics").setLevel(logging.WARNING)
    device = "cpu"
    if arguments.device == "cuda":
        device = f"cuda:{place.local_rank}"
        torch.cuda.set_device(place.local_rank)
    team = join_team(timeout=600)
    found = measure(
        team,
        imgsz=arguments.imgsz,
        batch=arguments.batch,
        rounds=arguments.rounds,
        device=device,
    )
    if team.leads:
        machine = describe(torch.device(device))
        print("  ".join(f"{name} {value}" for name, value in machine.items()))
        print(
            f"{found['processes']} processes, {found['imgsz']} px, step of {found['batch']}, "
            f"{found['parameters']:,} parameters: {found['step']:.2f} s, of which messages "
            f"{1e3 * found['messages']:.1f} ms: {found['share']:.2%}"
        )
        if arguments.json:
            content = json.dumps({"machine": machine, **found}, indent=2)
            arguments.json.write_text(content + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
