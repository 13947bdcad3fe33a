"""Processes that train together, on one host or on several: each computes, one leads.

The leader alone holds what there must be one of: the noise, the ledger, the optimizer, the folder
of the run. The others, its followers, add to its sums and take over its weights.

    total     sums of clipped gradients  → the leader, un-noised
    publish   the leader's weights       → all, after noise and charge
    share     small facts                → all
    told      a fact of the leader       → all

What goes wrong in one process ends all of them: every exchange begins with a word from each,
which may be an error, and whoever fails says so in the next exchange of the others. A process that
is killed or cut off is noticed where a connection closes, or when the timeout is over.
"""

from discreet.distributed.process_group import ProcessGroup, join_team
from discreet.distributed.team import SOLO, Team, require_same

__all__ = ["SOLO", "ProcessGroup", "Team", "join_team", "require_same"]
