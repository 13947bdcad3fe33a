"""Data sets in Ultralytics' format: described and checked, read-only.

Imports neither torch nor Ultralytics, and never writes: no label cache, no repaired image.
"""

from __future__ import annotations

from discreet.data.grouping import group_by_file, group_by_pattern, grouped, shared_groups
from discreet.data.loading import load_dataset, training_files
from discreet.data.looks import records_like
from discreet.data.partners import partners_for
from discreet.data.records import DetectionDataset, ImageRecord, KeyPoints, TaskName
from discreet.data.subjects import suspected_copies, suspected_subjects

__all__ = [
    "DetectionDataset",
    "ImageRecord",
    "KeyPoints",
    "TaskName",
    "group_by_file",
    "group_by_pattern",
    "grouped",
    "load_dataset",
    "partners_for",
    "records_like",
    "shared_groups",
    "suspected_copies",
    "suspected_subjects",
    "training_files",
]
