"""How well a detector detects for a given ε, on real data sets.

    python -m benchmarks.utility --data FOLDER --weights yolov8n.pt
    python -m benchmarks.utility … --sets txl_pbc --epsilons 8 inf --repeats 1
    python -m benchmarks.utility … --set recipe=plain --label plain

FOLDER holds one folder a data set, with its data.yaml. Every run is the recipe of `discreet train`
with public validation images; ε = inf is the same without noise and clipping. Each result is in
the file of --results as soon as it is there, and is not measured again: stop and go on at will.
Other settings need another --label, other weights another file.
Noise is never seeded; a repeat differs in it and in augmentation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.machine import describe
from discreet.api import train
from discreet.data import load_dataset
from discreet.drawing import draw
from discreet.storage import write_json
from discreet.terminal import RichReporter
from discreet.yolo.evaluate import evaluate_weights
from discreet.yolo.stock import train_stock


@dataclass(frozen=True, kw_only=True)
class Set:
    """A data set as it is measured.

    Attributes:
        imgsz: Side of the images in pixels.
        delta: δ.
        stock_epochs: Epochs of Ultralytics' own training.
        splits: Splits that are reported.
    """

    imgsz: int
    delta: float
    stock_epochs: int
    splits: tuple[str, ...] = ("val",)


SETS: Mapping[str, Set] = {
    "txl_pbc": Set(imgsz=160, delta=1e-4, stock_epochs=25, splits=("val", "test")),
    "fod_a": Set(imgsz=128, delta=1e-4, stock_epochs=8),
    "bccd": Set(imgsz=160, delta=1e-3, stock_epochs=25),
}
# No clipping: a bound that no gradient reaches.
_WITHOUT = {"noise_multiplier": 0, "max_grad_norm": 1e6, "clipping": "flat"}
STOCK = 0.0  # in place of an ε


def measure(
    data: Path,
    weights: Path,
    *,
    name: str,
    epsilon: float,
    repeat: int,
    settings: Mapping[str, str],
) -> dict[str, Any]:
    """Train once and validate on every split.

    Args:
        data: The data set's file.
        weights: Public weights.
        name: One of `SETS`.
        epsilon: ε; ∞ for the same without noise and clipping; `STOCK` for Ultralytics' training.
        repeat: Seeds augmentation.
        settings: Further arguments of `discreet train`.
    """
    known = SETS[name]
    with tempfile.TemporaryDirectory() as folder:
        if epsilon == STOCK:
            stock = train_stock(
                load_dataset(data),
                model=str(weights),
                epochs=known.stock_epochs,
                folder=Path(folder),
                settings={"batch": 16, "imgsz": known.imgsz, "seed": repeat, "workers": 0},
            )
            trained, seconds, spent = stock.weights, stock.seconds, None
        else:
            result = train(
                {
                    "data": str(data),
                    "model": str(weights),
                    "imgsz": known.imgsz,
                    "delta": known.delta,
                    "val_data": "public",
                    "seed": repeat,
                    "project": folder,
                    "ledger": f"{folder}/ledger.sqlite",
                    **(_WITHOUT if math.isinf(epsilon) else {"epsilon": epsilon}),
                    **settings,
                },
                reporter=RichReporter(sys.stderr),
            )
            trained, seconds = result.weights, result.seconds
            spent = result.spent.epsilon if result.claim_valid else None
        scores = {
            split: evaluate_weights(trained, data, imgsz=known.imgsz, split=split)
            for split in known.splits
        }
    return {"seconds": seconds, "spent": spent, "delta": known.delta, "scores": scores}


def conflict(
    results: Sequence[Mapping[str, Any]], *, label: str, given: Mapping[str, str]
) -> str | None:
    """Why settings may not go by a label, where other ones do already.

    Results of before settings were kept are taken for what their label says.
    """
    for result in results:
        if result["label"] == label and (own := result.get("given", given)) != given:
            said, asked = (" ".join(f"{k}={v}" for k, v in each.items()) for each in (own, given))
            return f"results of {said} go by the label {label or 'stock'!r} already, not of {asked}"
    return None


def rows_of(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Mean and spread (standard deviation) over repeats, a row for each set, label and ε."""

    def key(result: Mapping[str, Any]) -> tuple[str, str, float]:
        return result["set"], result["label"], float(result["epsilon"])  # JSON has no infinity

    rows: list[list[str]] = []
    for (name, label, epsilon), group in itertools.groupby(sorted(results, key=key), key=key):
        same = list(group)
        cells = [name, label, "stock" if epsilon == STOCK else f"{epsilon:g}", str(len(same))]
        for split in SETS[name].splits:
            for metric in ("map50", "map50_95"):
                values = [result["scores"][split][metric] for result in same]
                spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
                cells.append(f"{split} {metric} {statistics.mean(values):.3f}{spread}")
        cells.append(f"{statistics.mean(result['seconds'] for result in same):.0f} s")
        rows.append(cells)
    return rows


def write_plot(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw mAP50 on val over ε: means of repeats with all of them, and stock training dashed.

    Args:
        results: As `main` keeps them.
        path: SVG or PNG.
    """

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        epsilons = sorted({float(r["epsilon"]) for r in results} - {STOCK})
        place = {epsilon: number for number, epsilon in enumerate(epsilons)}
        for colour, name in enumerate(dict.fromkeys(r["set"] for r in results)):
            same = [r for r in results if r["set"] == name]
            scores = {
                epsilon: [
                    r["scores"]["val"]["map50"] for r in same if float(r["epsilon"]) == epsilon
                ]
                for epsilon in (STOCK, *epsilons)
            }
            there = [epsilon for epsilon in epsilons if scores[epsilon]]
            axes.plot(
                [place[e] for e in there],
                [statistics.mean(scores[e]) for e in there],
                "o-",
                color=f"C{colour}",
                label=name,
            )
            dots = [(place[e], value) for e in there for value in scores[e]]
            axes.plot(*zip(*dots, strict=True), ".", color=f"C{colour}", alpha=0.5)
            if scores[STOCK]:
                level = statistics.mean(scores[STOCK])
                axes.axhline(level, linestyle="--", color=f"C{colour}", linewidth=1)
        axes.set_xticks(list(place.values()), [f"{e:g}".replace("inf", "∞") for e in epsilons])
        axes.set(xlabel="ε (∞: no noise, no clipping)", ylabel="mAP50, val", ylim=(0, 1))
        axes.grid(visible=True, alpha=0.3)
        axes.legend(loc="lower right")

    draw(path, paint, size=(6.0, 3.6))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet, and print all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--weights", type=Path, required=True, help="public weights to start from")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--epsilons", nargs="+", type=float, default=[1, 2, 4, 8, math.inf])
    parser.add_argument("--stock", action="store_true", help="Ultralytics' own training too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="for train")
    parser.add_argument("--label", default="auto", help="what the settings are called")
    parser.add_argument("--results", type=Path, default=Path("utility.json"))
    parser.add_argument("--plot", type=Path, help="where to draw them, FILE.svg or FILE.png")
    asked = parser.parse_args(argv)
    settings = dict(word.split("=", 1) for word in asked.set)
    results: list[dict[str, Any]] = (
        json.loads(asked.results.read_text(encoding="utf-8")) if asked.results.exists() else []
    )
    model = {"model": asked.weights.name}
    given_by_label = {asked.label: model | settings, "": model}  # "": stock
    for label, given in given_by_label.items():
        if found := conflict(results, label=label, given=given):
            parser.error(f"{asked.results}: {found}; give another --label, or another --results")
    done = {(r["set"], r["label"], float(r["epsilon"]), r["repeat"]) for r in results}
    epsilons = [*([STOCK] if asked.stock else []), *asked.epsilons]
    for name, repeat, epsilon in itertools.product(asked.sets, range(asked.repeats), epsilons):
        label = "" if epsilon == STOCK else asked.label
        if (name, label, epsilon, repeat) in done:
            continue
        found = measure(
            asked.data / name / "data.yaml",
            asked.weights,
            name=name,
            epsilon=epsilon,
            repeat=repeat,
            settings=settings,
        )
        own = {"set": name, "label": label, "epsilon": f"{epsilon:g}", "repeat": repeat}
        own["given"] = given_by_label[label]
        results.append({**own, **found, "machine": describe(torch.device("cpu"))})
        write_json(asked.results, results)
    console = Console(width=140)
    for row in rows_of(results):
        console.print("  ".join(row), highlight=False)
    if asked.plot:
        write_plot(results, asked.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
