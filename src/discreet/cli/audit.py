"""`discreet audit`: attack a run, or compare what two models give away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from discreet.cli import train
from discreet.cli.mode import Call, Facts, Mode, Row
from discreet.errors import ConfigurationError
from discreet.terminal import Reporter

_OWN: tuple[Row, ...] = (
    ("canaries", None, "their number: 5000 for attack=gradient, 500 for attack=image"),
    (
        "attack",
        "gradient",
        "gradient: sees every step's noised gradient; image: sees only the final weights",
    ),
    ("compare", None, "weights of a model trained on the same images without privacy"),
    ("release", None, "release folder of the private run to compare it with"),
)


def run(call: Call) -> Facts:
    """Audit, and return the facts.

    Raises:
        DiscreetError: Anything that is wrong.
    """
    rest = dict(call.given)
    own = {name: rest.pop(name) for name, _, _ in _OWN if name in rest}
    if "compare" in own or "release" in own:
        return _compare(own, rest, reporter=call.reporter)
    attack = own.get("attack", "gradient")
    if attack not in ("gradient", "image"):
        raise ConfigurationError(f"expected gradient or image, got attack={attack}", where="attack")
    canaries = _whole(own, "canaries")

    from discreet.arguments import split_arguments

    split_arguments(rest, required=("data", "model"))

    from discreet.yolo.audit import audit_run  # late: seconds of imports

    audited = audit_run(rest, attack=cast(Any, attack), canaries=canaries, reporter=call.reporter)
    return audited.to_json()


def _whole(given: Mapping[str, str], name: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigurationError(f"expected a whole number >= 1, got {name}={text}", where=name)
    return int(text)


def _compare(
    own: Mapping[str, str], rest: Mapping[str, str], *, reporter: Reporter
) -> dict[str, object]:
    paths = {**own, **rest}
    for name in ("compare", "release", "data"):
        if name not in paths:
            raise ConfigurationError(
                "missing",
                where=name,
                do="Write `discreet audit compare=STOCK.pt release=FOLDER data=DATA.yaml`.",
            )
    strange = set(paths) - {"compare", "release", "data", "imgsz"}
    if strange:
        raise ConfigurationError("has no meaning in a comparison", where=min(strange))
    imgsz = _whole(paths, "imgsz")

    from discreet.yolo.membership import compare_membership  # late: seconds of imports

    reporter.stage("measuring the loss of each image under both models")
    found = compare_membership(
        stock=Path(paths["compare"]),
        release=Path(paths["release"]),
        data=Path(paths["data"]),
        imgsz=imgsz,
    )
    for name, curve in (("plain model", found.stock), ("private model", found.private)):
        reporter.notice(
            f"{name}: AUC {curve.auc:.3f} (0.5 is a coin), finds "
            f"{100 * curve.tpr_at_1_percent_fpr:.1f} % of the members at 1 % false alarms"
        )
    return {"membership": found.to_json()}


def _rows() -> dict[str, list[Row]]:
    return {"Arguments": [*_OWN, ("…", None, "those of `discreet train --help`")]}


MODE = Mode(
    name="audit",
    summary="train with canaries, attack the run, and see how much ε the attack proves",
    usage="data=DATA.yaml model=WEIGHTS.pt epsilon=8 [key=value …]",
    about=(
        "Train as `discreet train` would, with canaries among the training records, and attack "
        "the run. The attack proves, with 95 % confidence, that ε is at least so much; it never "
        "proves more than a correct run claims. Takes the arguments of `discreet train` too. The "
        "weights of such a run are for the audit only. With compare= and release=, nothing is "
        "trained: the same membership attack is made on a plain model and on a private one."
    ),
    example="""\
  discreet audit data=bccd/data.yaml model=yolov8n.pt epsilon=8
  discreet audit compare=stock.pt release=runs/private/train/release \\
    data=bccd/data.yaml""",
    run=run,
    rows=_rows,
    is_flag=train.is_flag,
)
