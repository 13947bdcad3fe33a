"""`discreet demo`: make scenes, train on them privately, measure before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from discreet.demo import demo_model_path
from discreet.demo.dataset import write_dataset
from discreet.demo.scenes import PRIVATE, REFERENCE_SIZE
from discreet.terminal import Reporter

TRAIN, VAL = 2000, 300
EPOCHS, BATCH = 6, 256


def run_demo(
    *, epsilon: float = 8.0, seed: int = 0, project: str | Path = "runs/demo", reporter: Reporter
) -> dict[str, Any]:
    """Run the demo.

    Args:
        epsilon: ε that the run ends at or under.
        seed: Which scenes are drawn; never the noise.
        project: Folder of the scenes and of the run.
        reporter: Who is told of the progress.

    Returns:
        The facts of the run, and mAP50 on unseen scenes before and after (`map50_before`,
        `map50_after`).
    """
    # Late: importing Ultralytics takes seconds.
    from discreet.api import train
    from discreet.yolo.evaluate import evaluate_weights

    reporter.stage(f"drawing {TRAIN + VAL:,} scenes of a laboratory that the model never saw")
    folder = Path(project)
    data = write_dataset(
        folder / "scenes",
        style=PRIVATE,
        train=TRAIN,
        val=VAL,
        size=REFERENCE_SIZE,
        seed=seed,
        progress=reporter.stage_progress,
    )
    reporter.stage("measuring the shipped model, trained on another laboratory's public scenes")
    before = evaluate_weights(demo_model_path(), data, imgsz=REFERENCE_SIZE)
    reporter.notice(f"before: mAP50 {before['map50']:.3f}")
    result = train(
        {
            "data": str(data),
            "model": str(demo_model_path()),
            "epsilon": epsilon,
            "epochs": EPOCHS,
            "batch": BATCH,
            "imgsz": REFERENCE_SIZE,
            "val_data": "public",  # synthetic, like everything here
            "project": str(folder),
            "name": "run",
        },
        reporter=reporter,
    )
    assert result.metrics is not None
    after = result.metrics["map50"]
    reporter.notice(f"mAP50 on unseen scenes: {before['map50']:.3f} before, {after:.3f} after")
    return {**result.to_json(), "map50_before": before["map50"], "map50_after": after}
