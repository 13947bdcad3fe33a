#!/usr/bin/env python
"""Make `src/discreet/demo/demo-model.pt`, the small model that the built-in demo starts from.

Ordinary, non-private training by stock Ultralytics, on synthetic scenes of the demo's public
laboratory only: no real image and no scene of the private laboratory is seen. The private
laboratory's scenes are used once, at the end, to print how much the model is worth there.

    python scripts/pretrain_demo_model.py                      # about eight minutes
    python scripts/pretrain_demo_model.py --epochs 1 --train 200 --output /tmp/quick.pt

With the same arguments, software and processor type the file comes out the same. It holds
half-precision weights and the class names, no optimizer state, paths, dates or seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

DEMO = Path(__file__).resolve().parents[1] / "src" / "discreet" / "demo"
IMAGE_SIZE = 128
LARGEST_FILE = 4_000_000
# Far from the seed that `discreet demo` takes by default; other scenes either way.
DEFAULT_SEED = 20_240_101
VALIDATION_SCENES = 300


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=DEMO / "demo-model.pt")
    parser.add_argument("--train", type=int, default=5000, help="public training scenes")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="pretrain-demo-") as scratch:
        # Before Ultralytics is imported: it reads these once, and must not touch the network.
        os.environ |= {
            "YOLO_OFFLINE": "true",
            "YOLO_AUTOINSTALL": "false",
            "YOLO_CONFIG_DIR": scratch,
        }
        pretrain(arguments, Path(scratch))


def pretrain(arguments: argparse.Namespace, scratch: Path) -> None:
    import torch
    from ultralytics import YOLO
    from ultralytics.nn.tasks import load_checkpoint

    from discreet.demo.dataset import write_dataset
    from discreet.demo.scenes import PRIVATE, PUBLIC

    torch.set_num_threads(arguments.threads)
    started = time.monotonic()
    public = write_dataset(
        scratch / "public",
        style=PUBLIC,
        train=arguments.train,
        val=VALIDATION_SCENES,
        size=IMAGE_SIZE,
        seed=arguments.seed,
    )
    private = write_dataset(
        scratch / "private",
        style=PRIVATE,
        train=1,
        val=VALIDATION_SCENES,
        size=IMAGE_SIZE,
        seed=arguments.seed + 1,
    )
    print(f"scenes drawn: {time.monotonic() - started:.0f} s", flush=True)

    yolo = YOLO(DEMO / "demo-model.yaml", task="detect")
    yolo.train(
        data=str(public),
        imgsz=IMAGE_SIZE,
        epochs=arguments.epochs,
        batch=arguments.batch,
        nbs=arguments.batch,
        optimizer="AdamW",
        lr0=0.003,
        lrf=0.02,
        warmup_epochs=1,
        cos_lr=True,
        # Scenes vary enough by themselves: flips for orientation, a little colour and size.
        mosaic=0.0,
        erasing=0.0,
        hsv_h=0.01,
        hsv_s=0.2,
        hsv_v=0.15,
        scale=0.15,
        translate=0.05,
        flipud=0.5,
        device="cpu",
        workers=0,
        cache="ram",
        amp=False,
        val=False,
        plots=False,
        deterministic=True,
        seed=arguments.seed,
        project=str(scratch / "runs"),
        name="pretrain",
        verbose=False,
    )
    model, _ = load_checkpoint(scratch / "runs" / "pretrain" / "weights" / "last.pt")
    save(model, arguments.output)
    refuse_traces(arguments.output, scratch)
    print(f"trained: {time.monotonic() - started:.0f} s")

    size = arguments.output.stat().st_size
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{arguments.output.name}: {size:,} bytes, {parameters:,} parameters")
    print("sha256", hashlib.sha256(arguments.output.read_bytes()).hexdigest())
    for laboratory, data in (("public", public), ("private", private)):
        metrics = YOLO(arguments.output).val(
            data=str(data),
            imgsz=IMAGE_SIZE,
            batch=arguments.batch,
            device="cpu",
            workers=0,
            plots=False,
            verbose=False,
            project=str(scratch / "runs"),
        )
        classes = ", ".join(
            f"{metrics.names[number]} {ap50:.3f}"
            for number, ap50 in zip(metrics.box.ap_class_index, metrics.box.ap50, strict=True)
        )
        print(
            f"{laboratory} validation scenes: mAP50 {metrics.box.map50:.3f}, "
            f"mAP50-95 {metrics.box.map:.3f} (AP50: {classes})"
        )


def save(model: Any, output: Path) -> None:
    """Write a checkpoint that stock `YOLO(...)` loads, holding nothing about this machine."""
    import torch
    from ultralytics import __version__

    arguments = {"task": "detect", "imgsz": IMAGE_SIZE}
    model.args = arguments
    model.yaml["yaml_file"] = "demo-model.yaml"
    model.pt_path = None
    model.criterion = None
    for parameter in model.parameters():
        parameter.requires_grad = False
    checkpoint = {
        "epoch": -1,
        "best_fitness": None,
        "model": model.half(),
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": arguments,
        "version": __version__,
        "license": "AGPL-3.0-or-later",
    }
    # Through memory: saved to a path, the archive would carry the file's name.
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(buffer.getvalue())


def refuse_traces(output: Path, scratch: Path) -> None:
    """Refuse a file that is too large, needs unsafe loading, or names this machine's folders."""
    from ultralytics.nn.tasks import torch_safe_load

    torch_safe_load(output, safe_only=True)
    if output.stat().st_size > LARGEST_FILE:
        raise SystemExit(f"{output} has more than {LARGEST_FILE:,} bytes")
    with zipfile.ZipFile(output) as archive:
        pickled = next(archive.read(name) for name in archive.namelist() if "data.pkl" in name)
    for folder in (scratch, DEMO.parents[2], Path.home()):
        if str(folder).encode() in pickled:
            raise SystemExit(f"{output} names a folder of this machine: {folder}")


if __name__ == "__main__":
    main()
