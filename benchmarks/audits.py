"""How much of the claimed ε an audit of correct runs proves, and whether it ever proves more.

    python -m benchmarks.audits --data bccd/data.yaml --weights yolov8n.pt
    python -m benchmarks.audits … --runs 20 --canaries 1000 --set steps=10 imgsz=96

Every run is one of `discreet audit`, by gradient canaries, with noise of its own. A lower bound
holds with 95 % confidence each, so that of very many correct runs a few in a hundred may exceed
their claim; in practice the attack is far from perfect, and none should.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.machine import describe
from discreet.yolo.audit import audit_run


def main(argv: Sequence[str] | None = None) -> int:
    """Audit some runs, and print what each proved."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="the data set's file")
    parser.add_argument("--weights", type=Path, required=True, help="public weights")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--canaries", type=int, default=1000)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="for train")
    given = parser.parse_args(argv)
    settings = dict(pair.split("=", 1) for pair in given.set)
    print(describe(torch.device("cpu")))
    bounds: list[float] = []
    above = 0
    for number in range(1, given.runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            run = audit_run(
                {
                    "data": str(given.data),
                    "model": str(given.weights),
                    "epsilon": given.epsilon,
                    "val": False,
                    "project": folder,
                    "ledger": f"{folder}/ledger.sqlite",
                    **settings,
                },
                attack="gradient",
                canaries=given.canaries,
            )
        result = run.result
        bounds.append(result.one_run.epsilon / result.claimed_epsilon)
        above += result.refuted
        print(
            f"{number}: claimed {result.claimed_epsilon:.2f}, proven {result.one_run.epsilon:.2f} "
            f"({bounds[-1]:.2f} of it), Clopper-Pearson {result.rates.epsilon:.2f}",
            flush=True,
        )
    print(
        f"{above} of {given.runs} above the claim; proven share {min(bounds):.2f} to "
        f"{max(bounds):.2f}, median {statistics.median(bounds):.2f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
