"""`discreet distill`: a student that learns from a teacher."""

from __future__ import annotations

from discreet.cli import train
from discreet.cli.mode import Call, Facts, Mode, Row


def run(call: Call) -> Facts:
    """Train, and return the facts of the run."""
    from discreet.arguments import parse_value, split_arguments
    from discreet.arguments.students import read_student_arguments

    given = dict(call.given)
    if "public_data" in given:
        read_student_arguments(given)
    elif parse_value(given.get("resume", "")) in ("", False, None):
        split_arguments(given, required=("teacher", "data", "model"))

    from discreet import api  # late: seconds of imports, and the arguments are right

    if "teacher" not in given:  # an interrupted run knows its own
        return api.train(given, reporter=call.reporter).to_json()
    return api.distill(given, reporter=call.reporter).to_json()


def _rows() -> dict[str, list[Row]]:
    from discreet.arguments import students
    from discreet.arguments.privacy import PrivacyArguments

    fields = PrivacyArguments.model_fields
    guiding: list[Row] = [
        (name, fields[name].default, fields[name].description or "")
        for name in ("teacher", "teacher_data", "teacher_gain")
    ]
    return {
        "With data=: a teacher guides private training": [
            *guiding,
            ("…", None, "those of `discreet train --help` but public_data"),
        ],
        "With public_data=: a private teacher labels public images": students.rows(),
    }


MODE = Mode(
    name="distill",
    summary="train a student that learns from a teacher",
    usage="teacher=TEACHER model=WEIGHTS.pt data=DATA.yaml …",
    about=(
        "With data=, a teacher guides private training: what it says of each image is part of that "
        "image's own loss, inside the clipped gradient. It is public by your word "
        "(teacher_data=public), or the release of a private run, whose ε is then counted in this "
        "run's. With public_data=, the release of a private run labels public images, and an "
        "ordinary training learns from those alone: nothing is spent, and the student's release "
        "carries the teacher's claim unchanged. A teacher that may have seen private images "
        "without privacy is refused."
    ),
    example="""\
  discreet distill teacher=yolov8x.pt teacher_data=public \\
    model=yolov8n.pt data=bccd/data.yaml epsilon=8
  discreet distill teacher=runs/private/train/release \\
    model=yolov8n.pt public_data=public/data.yaml epochs=50""",
    run=run,
    rows=_rows,
    is_flag=train.is_flag,
)
