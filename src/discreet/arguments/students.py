"""The arguments of a student that learns from public images which a private teacher labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

from discreet.arguments import privacy
from discreet.arguments.accepted import ACCEPTED
from discreet.arguments.problems import Problem, gather, wrong_value
from discreet.arguments.suggestions import unknown_argument
from discreet.arguments.values import Count, Path, check_value, shown

DEFAULT_EPOCHS, DEFAULT_BATCH, DEFAULT_CONF = 50, 16, 0.25
# Ultralytics' own that its training without privacy takes over, under their own names.
STOCK = ("imgsz", "device", "workers", "seed", "optimizer", "lr0", "lrf", "cos_lr", "weight_decay")
_FOLDER = ("project", "name")
_OF_PRIVACY = ("sign", "ledger")
_LABELLING = ("conf", "iou", "max_det")
_ACCEPTED = {name: entry for section in ACCEPTED.values() for name, entry in section.items()}


@dataclass(frozen=True, kw_only=True)
class Own:
    """An argument that means something of its own here.

    Attributes:
        values: Kind of value, as a type annotation.
        default: Its value if it is not given.
        help: What it does.
    """

    values: Any
    default: object
    help: str


OWN: Mapping[str, Own] = {
    "teacher": Own(values=Path, default=None, help="release folder of a private run"),
    "model": Own(values=Path, default=None, help="what the student starts from, public"),
    "public_data": Own(values=Path, default=None, help="data set file of public images"),
    "epochs": Own(values=Count, default=DEFAULT_EPOCHS, help="passes over the public images"),
    "batch": Own(values=Count, default=DEFAULT_BATCH, help="images in a step"),
}


@dataclass(frozen=True, kw_only=True)
class StudentArguments:
    """What was asked for, checked.

    Attributes:
        teacher: Release folder of the teacher.
        model: Weights or architecture that the student starts from.
        public_data: Data set file of the public images; its training labels are not looked at.
        epochs: Passes over the images.
        batch: Images in a step.
        settings: Ultralytics' own arguments that were given.
        sign: As in `PrivacyArguments`.
        ledger: As in `PrivacyArguments`.
    """

    teacher: File
    model: str
    public_data: File
    epochs: int
    batch: int
    settings: Mapping[str, Any]
    sign: str | bool
    ledger: str | None

    @property
    def conf(self) -> float:
        """Least confidence of a label."""
        given = self.settings.get("conf")
        return DEFAULT_CONF if given is None else given  # 0 takes all that the teacher finds

    @property
    def stock(self) -> dict[str, Any]:
        """Settings of Ultralytics' training."""
        given = {name: self.settings[name] for name in STOCK if name in self.settings}
        return {"batch": self.batch, **given}


def rows() -> list[tuple[str, object, str]]:
    """Name, default and help of each argument."""
    own = [(name, entry.default, entry.help) for name, entry in OWN.items()]
    accepted = [
        (name, DEFAULT_CONF if name == "conf" else _ACCEPTED[name].default, _ACCEPTED[name].help)
        for name in (*_LABELLING, *STOCK, *_FOLDER)
    ]
    fields = privacy.PrivacyArguments.model_fields
    return [
        *own,
        *accepted,
        *((name, fields[name].default, fields[name].description or "") for name in _OF_PRIVACY),
    ]


def read_student_arguments(given: Mapping[str, object]) -> StudentArguments:
    """Check all arguments.

    Args:
        given: Argument name to text or value; None means that it is not given.

    Raises:
        ConfigurationError: Arguments are unknown, wrong or missing; all are in the one error.
    """
    given = {name: value for name, value in given.items() if value is not None}
    values: dict[str, Any] = {name: entry.default for name, entry in OWN.items()}
    problems: list[Problem] = []
    for name, value in given.items():
        kind = _kind_of(name)
        if kind is None:
            problems.append(_unknown(name, value))
            continue
        try:
            values[name] = check_value(kind, value)
        except ValueError:
            problems.append(wrong_value(name, value, kind, usual=values.get(name)))
    problems += [
        Problem(where=name, what="missing", do=f"Give {name}=…")
        for name in ("teacher", "model", "public_data")
        if name not in given
    ]
    if problems:
        raise gather(problems)
    return StudentArguments(
        teacher=File(values["teacher"]),
        model=values["model"],
        public_data=File(values["public_data"]),
        epochs=values["epochs"],
        batch=values["batch"],
        settings={name: values[name] for name in (*STOCK, *_FOLDER, *_LABELLING) if name in values},
        sign=values.get("sign", True),
        ledger=values.get("ledger"),
    )


def _kind_of(name: str) -> Any:
    if name in OWN:
        return OWN[name].values
    if name in (*STOCK, *_FOLDER, *_LABELLING):
        return _ACCEPTED[name].values
    return privacy.kind_of(name) if name in _OF_PRIVACY else None


def _unknown(name: str, value: object) -> Problem:
    if name == "data":
        return Problem(
            where=shown(name, value),
            what="a student of public images sees no private ones",
            do="Leave data out; or leave public_data out, and the teacher guides private training; "
            "for mosaic= and mixup=, discreet train takes a teacher and both.",
        )
    if name == "teacher_data":
        return Problem(
            where=shown(name, value),
            what="a private run's release labels public images, and needs no word",
            do="Leave it out, and give teacher= the release folder; or give data= in place of "
            "public_data, and public weights guide private training.",
        )
    if name == "hours":
        return Problem(
            where=shown(name, value),
            what="a student reads its public images as often as it is told",
            do="Give epochs= in its place.",
        )
    if name in privacy.names():
        return Problem(
            where=shown(name, value),
            what="nothing is spent here: the student's claim is the teacher's",
            do="Leave it out.",
        )
    return unknown_argument(name, value, [row[0] for row in rows()], mode="distill")
