"""Whether what a record tells beside its numbers can be of one run of this program."""

from __future__ import annotations

from collections.abc import Iterator

from discreet.arguments import TRAINABLE_PARTS
from discreet.privacy import PrivacyUnit
from discreet.randomness import InsecureSource, SecureSource
from discreet.statement.evidence import CHECK_FAILED, REFUTED, audit_faults, check_faults, refutes
from discreet.statement.record import warnings_of
from discreet.statement.schema import PrivacyRecord
from discreet.statement.settings import LARGEST_SETTING, setting_faults


def plausibility_faults(record: PrivacyRecord) -> Iterator[str]:
    """What contradicts another field, or is no word of this program's."""
    yield from _source_faults(record)
    yield from _unit_faults(record)
    yield from _evidence_faults(record)
    yield from _training_faults(record)
    yield from setting_faults(record.configuration, student=saw_no_private_image(record))
    if record.warnings != tuple(warnings_of(record)):
        yield "warnings: not those that follow from the rest of the record"


def saw_no_private_image(record: PrivacyRecord) -> bool:
    """Whether it is of a student, which a private teacher's labels of public images taught."""
    return record.teacher is not None and record.teacher.guides == "labels"


def _training_faults(record: PrivacyRecord) -> Iterator[str]:
    training = record.training
    parts = training.trainable.split("+")
    if not set(parts) <= set(TRAINABLE_PARTS) or len(set(parts)) < len(parts):
        yield "training.trainable: not parts of a detector"
    gain = None if record.teacher is None else record.teacher.gain
    if gain is not None and gain > LARGEST_SETTING:
        yield "teacher.gain: no run has this value"
    settings, partners = record.configuration, record.data.partners
    mixes = any(settings.get(name) for name in ("mosaic", "mixup"))
    student = saw_no_private_image(record)
    views = settings.get("views")
    if mixes and partners is None and not student and not (isinstance(views, int) and views > 1):
        yield "configuration: images are mixed, and neither with public ones nor with own views"
    if partners is not None and not mixes and not student:
        yield "data.partners: no image is mixed with them"
    if student != (training.norm == "batch") or student != (training.engine == "ultralytics"):
        yield "training: only a student of public images is trained without an engine of its own"


def _source_faults(record: PrivacyRecord) -> Iterator[str]:
    source = record.random_source
    known = SecureSource if source.secure else InsecureSource
    if source.description != known.description:
        yield "random_source: not in the words of this program for such a source"


def _unit_faults(record: PrivacyRecord) -> Iterator[str]:
    unit = record.unit
    grouped = unit.grouping_key is not None or unit.max_images_per_unit is not None
    if unit.kind is PrivacyUnit.IMAGE and grouped:
        yield "unit: where one image is the unit, nothing is grouped"


def _evidence_faults(record: PrivacyRecord) -> Iterator[str]:
    claim, check, audit = record.claim, record.check, record.audit
    yield from check_faults(check)
    yield from audit_faults(audit, epsilon=claim.epsilon, delta=claim.delta)
    if audit is not None and record.purpose != "audit":
        yield "audit: a run without canaries cannot be audited"
    against = {
        CHECK_FAILED: check is not None and not check.passed,
        REFUTED: refutes(audit),
    }
    for reason, stands in against.items():
        if stands != (reason in claim.reasons_against):
            yield f"claim.reasons_against: {reason!r} has to be {'there' if stands else 'left out'}"
