"""Start a function in several processes that form a team."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

# Imports take seconds: each process is forked from one that has done them.
FORKED = multiprocessing.get_context("forkserver")
_IMPORTED = ["discreet.yolo.train", "torch._dynamo"]  # the second by the first optimizer


@dataclass
class Member:
    """One process of a team."""

    process: Any
    answers: Any

    def answer(self, *, within: float = 240) -> Any:
        """What the function returned, or the error that it raised, which is returned."""
        if self.answers.poll(within):
            try:
                return self.answers.recv()
            except EOFError:
                pass
        self.process.join(1)
        return f"no answer: exit code {self.process.exitcode}"

    def kill(self) -> None:
        """End it as a crash would, without a last word."""
        self.process.kill()
        self.process.join()


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


def start_team(function: Callable[..., Any], *arguments: Any, size: int = 2) -> list[Member]:
    """Start `function(*arguments)` in as many processes, as torchrun would.

    Args:
        function: Of a module; what it returns is pickled.
        *arguments: Its arguments.
        size: How many processes.
    """
    FORKED.set_forkserver_preload(_IMPORTED)
    port = free_port()
    members = []
    for rank in range(size):
        mine, theirs = FORKED.Pipe(duplex=False)
        place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
        process = FORKED.Process(
            target=_run, args=(theirs, place, function, arguments), daemon=True
        )
        process.start()
        theirs.close()
        members.append(Member(process, mine))
    return members


def in_team(function: Callable[..., Any], *arguments: Any, size: int = 2) -> list[Any]:
    """What each process of a team returned or raised."""
    members = start_team(function, *arguments, size=size)
    return [member.answer() for member in members]


def _run(answers: Any, place: dict[str, Any], function: Callable[..., Any], arguments: Any) -> None:
    import torch

    os.environ.update({name: str(value) for name, value in place.items()})
    torch.set_num_threads(1)
    try:
        answer = function(*arguments)
    except (Exception, SystemExit) as error:
        answer = error
    answers.send(answer)
