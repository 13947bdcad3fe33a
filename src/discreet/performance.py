"""What only speed depends on: changing it never moves ε."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PerformanceConfig(BaseModel):
    """Speed settings of a run.

    Attributes:
        micro_batch_size: Most images per forward pass, or all of one unit where they are more; None
            measures what fits the memory.
        engine: Which engine computes per-example gradients; all are exact.
        bfloat16: Whether the model computes in bfloat16; None lets it where the CPU is faster so,
            and rounds each image alike whoever is beside it.
        workers: Processes that load images; 0 loads in the training process.
        feature_cache: Most GiB of memory for what frozen layers give for images; None chooses by
            what is free.
        team_timeout: Seconds after which a silent process of a run of several counts as lost.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    micro_batch_size: int | None = Field(default=None, ge=1)
    engine: Literal["discreet", "opacus", "reference"] = "discreet"
    bfloat16: bool | None = None
    workers: int = Field(default=0, ge=0)
    feature_cache: float | None = Field(default=None, ge=0)
    team_timeout: float = Field(default=600, gt=0)
