"""The form of `privacy.json`, version 2.2: what a record may say, field by field.

Every field is public by configuration, or an output of the mechanism. There is no field for a
path, a file name, a seed, a training loss, a drawn batch size or a digest of an image. The form
is closed: an unknown key, an infinite number or a value of another type is refused.
"""

from discreet.statement.schema.claim import (
    AccountantFacts,
    Adversary,
    Claim,
    EventRecord,
    Events,
    Outputs,
    Unit,
)
from discreet.statement.schema.data import (
    DataAccesses,
    PartnerData,
    PretrainingData,
    Teacher,
    TeacherClaim,
    TeacherTerm,
    TrainingData,
    ValidationData,
)
from discreet.statement.schema.figures import (
    AttackBounds,
    DeltaAtEpsilon,
    EpsilonAtDelta,
    Figures,
    GaussianDp,
    GroupGuarantee,
    Spending,
    TruePositiveRate,
)
from discreet.statement.schema.mechanism import Mechanism, RandomSource, Sampling, Steps
from discreet.statement.schema.record import (
    SCHEMA_FILE,
    SCHEMA_VERSION,
    Metric,
    PrivacyRecord,
    Setting,
    json_schema,
    schema_text,
    shipped_schema,
    to_json,
)
from discreet.statement.schema.run import Hardware, Signer, Software, Training, Weights

__all__ = [
    "SCHEMA_FILE",
    "SCHEMA_VERSION",
    "AccountantFacts",
    "Adversary",
    "AttackBounds",
    "Claim",
    "DataAccesses",
    "DeltaAtEpsilon",
    "EpsilonAtDelta",
    "EventRecord",
    "Events",
    "Figures",
    "GaussianDp",
    "GroupGuarantee",
    "Hardware",
    "Mechanism",
    "Metric",
    "Outputs",
    "PartnerData",
    "PretrainingData",
    "PrivacyRecord",
    "RandomSource",
    "Sampling",
    "Setting",
    "Signer",
    "Software",
    "Spending",
    "Steps",
    "Teacher",
    "TeacherClaim",
    "TeacherTerm",
    "Training",
    "TrainingData",
    "TruePositiveRate",
    "Unit",
    "ValidationData",
    "Weights",
    "json_schema",
    "schema_text",
    "shipped_schema",
    "to_json",
]
