"""Data sets in Ultralytics' format: described and checked, read-only.

Imports neither torch nor Ultralytics, and never writes: no label cache, no repaired image.
"""

from __future__ import annotations

from discreet.data.loading import load_dataset
from discreet.data.records import DetectionDataset, ImageRecord, KeyPoints, TaskName

__all__ = ["DetectionDataset", "ImageRecord", "KeyPoints", "TaskName", "load_dataset"]
