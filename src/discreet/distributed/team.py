"""What a step and a trainer know of the processes that they share their work with."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from torch import Tensor

from discreet.clipping import ClippedSum
from discreet.errors import TeamError
from discreet.launched import Place


class Team(Protocol):
    """The processes of a run, as one of them sees them."""

    @property
    def place(self) -> Place:
        """Which of them this one is."""
        ...

    @property
    def leads(self) -> bool:
        """Whether this one is the leader."""
        ...

    def total(self, part: ClippedSum) -> ClippedSum:
        """The sum of all parts of a draw, each of other units.

        Args:
            part: This process's; its tensors are used up.

        Returns:
            The whole sum for the leader; for followers its counts, without any tensors.

        Raises:
            TeamError: A process is lost, or clips to another bound.
        """
        ...

    def publish(self, tensors: Iterable[Tensor], fact: Any) -> Any:
        """Give all processes the leader's tensors, in place, and a fact beside them.

        Args:
            tensors: The same in every process, in shape and order.
            fact: What JSON can hold; only the leader's counts.

        Returns:
            The leader's fact.

        Raises:
            TeamError: A process is lost.
        """
        ...

    def share(self, fact: Any) -> list[Any]:
        """Everyone's fact, of what JSON can hold, in the order of ranks.

        Raises:
            TeamError: A process is lost.
        """
        ...

    def told(self, fact: Any) -> Any:
        """The leader's fact, of what JSON can hold; that of the others is ignored.

        Raises:
            TeamError: A process is lost.
        """
        ...

    def tell(self, error: Exception) -> None:
        """Let an error of this process end the present exchange of the others.

        They raise it too. Nothing happens if they know of it, or are gone.
        """
        ...

    def patiently(self) -> AbstractContextManager[None]:
        """Let followers wait without a timeout meanwhile, as for what the leader does alone."""
        ...

    def leave(self, error: BaseException) -> None:
        """End the membership with an error.

        A follower that fails waits for the leader to end first, who speaks for all.
        """
        ...


class Solo:
    """One process, which is all there are."""

    place = Place()
    leads = True

    def total(self, part: ClippedSum) -> ClippedSum:
        """The part is the whole."""
        return part

    def publish(self, tensors: Iterable[Tensor], fact: Any) -> Any:
        """Nobody is there to publish to."""
        del tensors
        return fact

    def share(self, fact: Any) -> list[Any]:
        """The one fact."""
        return [fact]

    def told(self, fact: Any) -> Any:
        """The one fact."""
        return fact

    def tell(self, error: Exception) -> None:
        """Nobody is there to be told."""

    def patiently(self) -> AbstractContextManager[None]:
        """Nobody waits."""
        return nullcontext()

    def leave(self, error: BaseException) -> None:
        """There is nothing to leave."""


SOLO = Solo()


def require_same(team: Team, facts: Mapping[str, str]) -> None:
    """Refuse to go on where processes differ in what they must have in common.

    Args:
        team: The processes.
        facts: By what it is called, such as "weights", a digest of what this process has.

    Raises:
        TeamError: In all of them, if one has something else than the leader.
    """
    shared: list[tuple[str, dict[str, str]]] = team.share([socket.gethostname(), dict(facts)])
    for rank, (host, theirs) in enumerate(shared):
        different = [name for name, value in shared[0][1].items() if theirs.get(name) != value]
        if different:
            raise TeamError(
                f"process {rank + 1} of {len(shared)} has other {', other '.join(different)} than "
                "the first",
                where=f"host {host}",
                do="give all processes the same files, arguments and versions",
            )
