"""The images of a run: the private ones with their groups, and public ones beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from discreet.arguments import PrivacyArguments
from discreet.data import (
    DetectionDataset,
    grouped,
    load_dataset,
    partners_for,
    shared_groups,
    suspected_copies,
    suspected_subjects,
)
from discreet.errors import ConfigurationError
from discreet.terminal import Reporter
from discreet.yolo.images import require_public
from discreet.yolo.tasks import CLASSIFY, Task


def read_dataset(
    privacy: PrivacyArguments, settings: Mapping[str, Any], *, task: Task, reporter: Reporter
) -> DetectionDataset:
    """The validated images and their groups, with all that the user should know of them told.

    Raises:
        DatasetError: With all problems found.
        ConfigurationError: A group is protected and said to be public.
    """
    reporter.stage(f"reading {settings['data']}")
    dataset = load_dataset(
        settings["data"],
        progress=reporter.stage_progress,
        single_cls=bool(settings.get("single_cls")),
        task=task.name,
    )
    dataset = grouped(dataset, file=privacy.groups, pattern=privacy.group_regex)
    for notice in dataset.notices:
        reporter.notice(notice)
    for warning in suspected_subjects(dataset):
        reporter.warning(warning)
    if shared := shared_groups(dataset):
        what = f"{len(shared)} groups have training images and validation images, as {shared[0]!r}"
        if privacy.val_data == "public":
            raise ConfigurationError(
                f"{what}: whom training has to hide, the release would show",
                where="val_data=public",
                do="Keep their images out of val, or leave val_data=private.",
            )
        reporter.warning(f"{what}: metrics are of subjects that training has seen, and flatter it")
    if privacy.val_data == "public":
        for warning in suspected_copies(dataset):
            reporter.warning(warning)
    return dataset


def read_partners(
    privacy: PrivacyArguments,
    settings: Mapping[str, Any],
    *,
    beside: DetectionDataset,
    task: Task,
    reporter: Reporter,
) -> DetectionDataset | None:
    """The public images that private ones are mixed with; None where `public_data` is not given.

    Raises:
        DatasetError: With all problems found.
        UnsafeArgumentError: Some of them are private, here or by the ledger.
        ConfigurationError: They do not fit the private images.
    """
    if privacy.public_data is None:
        return None
    where = f"public_data={privacy.public_data}"
    if task is CLASSIFY:
        raise ConfigurationError(
            "an image of one class is not mixed with others", where=where, do="leave it out"
        )
    reporter.stage(f"reading {privacy.public_data}")
    public = load_dataset(
        privacy.public_data,
        splits=("train",),
        progress=reporter.stage_progress,
        single_cls=bool(settings.get("single_cls")),
        task=task.name,
    )
    public = partners_for(beside, public)
    require_public(public, ledger=privacy.ledger, where=where)
    for notice in public.notices:
        reporter.notice(notice)
    return public


def notice_new_key_points(source: nn.Module, dataset: DetectionDataset, reporter: Reporter) -> None:
    """Tell of key points that the weights do not know, as what trains may leave them random."""
    points, head = dataset.keypoints, cast(Any, source).model[-1]
    if points is not None and list(head.kpt_shape) != [points.count, points.columns]:
        reporter.notice(
            f"the weights know {head.kpt_shape[0]} key points of {head.kpt_shape[1]} numbers, "
            f"the data set has {points.count} of {points.columns}: their branch starts from random "
            "weights, and needs trainable=class_film+whole_head"
        )
