"""On which device a process computes."""

from __future__ import annotations

from typing import Any, cast

import torch
from ultralytics.utils.torch_utils import select_device

from discreet.arguments.split import ULTRALYTICS
from discreet.arguments.values import check_value
from discreet.errors import ConfigurationError
from discreet.launched import Place


def device_of(devices: object, place: Place) -> object:
    """The device of one process, from what all were given.

    Args:
        devices: One device, a list of one for each process of a host, or None.
        place: Which process it is for.

    Raises:
        ConfigurationError: There are more or fewer devices than processes.
    """
    if isinstance(devices, list):
        mine = cast("list[object]", devices)
        if place.size == 1:
            raise ConfigurationError(
                "several devices take a process each, and this is one process",
                where="device",
                do="give one device; `discreet train device=0,1 …` and torchrun start a process on "
                "each",
            )
        if len(mine) != place.local_size:
            raise ConfigurationError(
                f"{len(mine)} devices are given, and {place.local_size} processes run on this host",
                where="device",
                do="leave device out under torchrun: each process takes the GPU of its number",
            )
        return mine[place.local_rank]
    if place.local_size == 1 or devices == "cpu":
        return devices
    if devices is not None:
        raise ConfigurationError(
            f"{place.local_size} processes on this host cannot share device {devices!r}",
            where="device",
            do="leave device out, or give one for each process, as device=0,1",
        )
    return place.local_rank if torch.cuda.is_available() else None


def fits(devices: object, place: Place) -> bool:
    """Whether devices as they were typed are one for each process of this host, or any one."""
    kind = ULTRALYTICS["device"].values
    found = None if devices is None else check_value(kind, devices)
    return not isinstance(found, list) or (place.size > 1 and len(found) == place.local_size)


def check_device(device: object) -> torch.device:
    """The device that was asked for, or the usual one; refused if it is not there.

    Raises:
        ConfigurationError: torch cannot use it.
    """
    try:
        return cast(torch.device, select_device(cast(Any, device), verbose=False))
    except Exception as error:
        raise ConfigurationError(
            f"there is no device {device!r} here",
            where="device",
            do="use device=cpu, or the number of a GPU that torch sees",
        ) from error
