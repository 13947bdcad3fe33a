"""Start a process for each device of `device=0,1`, by torch's own launcher.

The same command line runs in each of them, as under `torchrun`; several hosts need torchrun.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from typing import cast

from discreet.cli.grammar import to_pairs
from discreet.cli.output import INTERRUPTED, MENDABLE, say_error
from discreet.errors import ConfigurationError
from discreet.launched import place_of_process

_MODE = "train"
_LONGEST_STEP = 300  # seconds; a process that is asked to end finishes its step before


def devices_asked(words: Sequence[str]) -> int:
    """How many processes a command line asks for, in a process that is not one of them yet.

    Args:
        words: After the program's name, without its own switches.
    """
    if not words or words[0] != _MODE or place_of_process().size > 1:
        return 1
    from discreet.arguments import is_flag
    from discreet.arguments.split import ULTRALYTICS
    from discreet.arguments.values import check_value

    try:
        typed = to_pairs(words[1:], is_flag=is_flag)["device"]
        devices = check_value(ULTRALYTICS["device"].values, typed)
    except (KeyError, ValueError, ConfigurationError):
        return 1  # what is wrong is told when the words are read in earnest
    return len(cast("list[object]", devices)) if isinstance(devices, list) else 1


def start_processes(words: Sequence[str], *, count: int) -> int:
    """Run the command line in so many processes, and wait for them.

    Args:
        words: After the program's name.
        count: How many.

    Returns:
        The exit status of the first that failed; 0 if none did.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in [*logging.root.manager.loggerDict]:
        if name.startswith("torch.distributed"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)  # we say it ourselves
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    with tempfile.TemporaryDirectory(prefix="discreet-processes-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id="discreet",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            shutdown_timeout=_LONGEST_STEP,
            signals_to_handle="SIGINT,SIGHUP,SIGQUIT",
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        _interrupt_on_sigterm()
        try:
            elastic_launch(config, sys.executable)("-m", "discreet", *words)
        except ChildFailedError as error:
            return _status_of(error)
        except SignalException as error:
            return INTERRUPTED if error.sigval == signal.SIGINT else 128 + error.sigval
        except KeyboardInterrupt:
            return INTERRUPTED
    return 0


def _interrupt_on_sigterm() -> None:
    """Have SIGTERM, as batch systems send it, end the processes as Ctrl-C does: in order.

    The launcher would hand it on as it is, and a process cannot tell that from the SIGTERM which
    ends those that are left where one has failed.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def _status_of(error: object) -> int:
    rank, failure = error.get_first_failure()  # pyright: ignore
    if failure.exitcode >= 0:
        return failure.exitcode  # it has said why
    name = signal.Signals(-failure.exitcode).name
    say_error(
        f"error: process {rank + 1} of the run was ended by {name}\n"
        "  What was charged stays charged. If steps were taken, go on with\n"
        "  discreet train resume=True, which takes the latest run of project=."
    )
    return MENDABLE
