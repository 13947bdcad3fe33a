"""What a run will do and cost, worked out before anything is spent."""

from discreet.planning.training import (
    TrainingPlan,
    default_batch_size,
    plan_rows,
    plan_training,
    plan_warnings,
)

__all__ = [
    "TrainingPlan",
    "default_batch_size",
    "plan_rows",
    "plan_training",
    "plan_warnings",
]
