"""A team of real processes, over gloo."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from discreet.clipping import AdaptiveClipping, ClippedSum, Clipping, FlatClipping
from discreet.distributed import SOLO, ProcessGroup, Team, join_team, require_same
from discreet.errors import BudgetError, DatasetError, TeamError
from discreet.launched import Place, place_of_process
from discreet.noise import GaussianMechanism
from discreet.randomness import InsecureSource, SecureSource
from discreet.step import private_step
from tests.team import free_port, in_team, start_team
from tests.test_step import Rows

ENTRIES = 4000


def joined(timeout: float = 20) -> Team:
    return join_team(timeout=timeout)


# ---- facts and tensors ----


def exchange() -> dict[str, Any]:
    team = joined()
    rank = team.place.rank
    big = [2**127 + rank] * 500  # more than one round of messages holds
    tensors = [torch.full((3,), float(rank)), torch.full((), rank), torch.full((2, 2), -rank)]
    return {
        "shared": team.share({"rank": rank}),
        "told": team.told(big) == [2**127] * 500,
        "long": [len(fact) for fact in team.share("x" * 3000 * rank)],
        "published": team.publish(tensors, rank),
        "tensors": [tensor.tolist() for tensor in tensors],
        "leads": team.leads,
        "place": str(team.place),
    }


def test_all_have_what_all_say_and_what_the_leader_has():
    answers = in_team(exchange, size=3)
    for rank, answer in enumerate(answers):
        assert answer.pop("leads") == (rank == 0)
        assert answer.pop("place") == f"process {rank + 1} of 3"
    assert answers[0] == {
        "shared": [{"rank": 0}, {"rank": 1}, {"rank": 2}],
        "told": True,
        "long": [0, 3000, 6000],
        "published": 0,
        "tensors": [[0.0] * 3, 0, [[0.0] * 2] * 2],
    }
    assert answers[1] == answers[2] == answers[0]


def part(rank: int) -> ClippedSum:
    sums = {"w": torch.full((5,), 10.0**rank), "idle": torch.zeros(2)}
    return ClippedSum(sums=sums, sensitivity=0.5, units=rank, clipped=rank, non_finite=rank // 2)


def add_up() -> tuple[dict[str, list[float]], tuple[float, ...]]:
    team = joined()
    whole = team.total(part(team.place.rank))
    counts = whole.units, whole.clipped, whole.non_finite, whole.sensitivity
    return {name: value.tolist() for name, value in whole.sums.items()}, counts


def test_only_the_leader_gets_the_un_noised_sum():
    whole, *others = in_team(add_up, size=3)
    assert whole == ({"w": [111.0] * 5, "idle": [0.0] * 2}, (3, 3, 1, 0.5))
    assert others == [({}, whole[1])] * 2


def add_up_unequally() -> None:
    team = joined()
    team.total(replace(part(0), sensitivity=0.5 + team.place.rank))


def test_a_process_that_clips_to_another_bound_is_refused():
    assert all(isinstance(error, TeamError) for error in in_team(add_up_unequally))


def test_one_process_is_a_team_of_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert join_team(timeout=1) is SOLO
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert place_of_process() == Place(rank=3, size=4, local_rank=0, local_size=1)
    assert SOLO.total(part(1)).units == 1


# ---- a step ----


class Model:
    """Parameters under plain SGD at rate 1, and what was charged."""

    def __init__(self) -> None:
        self.parameters = {
            "w": nn.Parameter(torch.zeros(3)),
            "idle": nn.Parameter(torch.zeros(ENTRIES)),
        }
        self.optimizer = torch.optim.SGD(self.parameters.values(), lr=1.0)
        self.charges = 0

    def charge(self) -> None:
        self.charges += 1

    def step(self, team: Team, parts: list[Any], *, sigma: float = 0.0, **kwargs: Any) -> None:
        options = {"clipping": FlatClipping(max_grad_norm=2.0), "charge": self.charge}
        options |= {"source": SecureSource()}
        private_step(
            parts,
            parameters=self.parameters,
            gradients_of=lambda rows: rows,
            mechanism=GaussianMechanism(noise_multiplier=sigma),
            expected_batch_size=1.0,
            optimizer=self.optimizer,
            team=team,
            **(options | kwargs),
        )


class Wide(Rows):
    """Rows for `w`, and nothing for a wide `idle`."""

    def weighted_sum(self, weights: Any) -> dict[str, torch.Tensor]:
        return {"w": weights["w"] @ self.rows, "idle": torch.zeros(ENTRIES)}


def steps(empty: bool) -> tuple[list[float], int]:
    team, model = joined(), Model()
    rank = team.place.rank
    mine = [] if empty or rank == 1 else [Wide([[float(rank), 0, 0], [0, 5.0, 0]])]
    for _ in range(3):
        model.step(team, mine)
    return model.parameters["w"].tolist(), model.charges


def test_a_step_sums_all_units_and_is_charged_once():
    answers = in_team(steps, False, size=3)  # one has no units
    for weights, _ in answers:
        assert weights == pytest.approx([-6, -12, 0], abs=1e-4)
    assert [charges for _, charges in answers] == [3, 0, 0]


def test_an_empty_draw_of_all_is_a_charged_step():
    assert [charges for _, charges in in_team(steps, True)] == [3, 0]


class NoisyAlone(ProcessGroup):
    """The mistake that is easily made: each process makes its sum private before they add up."""

    def total(self, part: ClippedSum) -> ClippedSum:
        noised = GaussianMechanism(noise_multiplier=1.5).privatise(part, SecureSource())
        return super().total(replace(part, sums=noised))


def spread(everyone_adds_noise: bool) -> tuple[float, float]:
    team, model = joined(), Model()
    if everyone_adds_noise:
        team = NoisyAlone(team.place)
    model.step(team, [], sigma=0.0 if everyone_adds_noise else 1.5)
    idle = model.parameters["idle"].detach()
    return float(idle.std()), float(idle.sum())


def test_noise_is_added_once_whatever_the_number_of_processes():
    (deviation, total), *others = in_team(spread, False, size=3)
    assert deviation == pytest.approx(1.5 * 2.0, rel=0.05)  # 4,000 samples: standard error 1.1 %
    assert all(other == (deviation, total) for other in others)
    # The same figure tells the mistake: three times the variance.
    (deviation, _), *_ = in_team(spread, True, size=3)
    assert deviation == pytest.approx(1.5 * 2.0 * 3**0.5, rel=0.05)


def learn_a_bound() -> float:
    team, model = joined(), Model()
    clipping: Clipping = AdaptiveClipping(max_grad_norm=1.0, count_noise_multiplier=1.0)
    for _ in range(2):
        model.step(team, [Wide([[3.0, 0, 0]])], clipping=clipping, source=SecureSource())
    return clipping.sensitivity


def test_a_bound_that_adapts_is_the_leaders_in_all():
    first, second = in_team(learn_a_bound)
    assert first == second != 1.0


# ---- what goes wrong in one goes wrong in all ----


def over_budget() -> tuple[str, float]:
    team, model = joined(), Model()

    def refuse() -> None:
        raise BudgetError("the budget is used up", where="a ledger", do="stop")

    try:
        model.step(team, [Wide([[3.0, 0, 0]])], sigma=1.0, charge=refuse)
    except BudgetError as error:
        team.tell(error)
        return str(error), float(model.parameters["idle"].abs().sum())
    return "", 0.0


def test_a_refused_charge_is_refused_for_all_and_nothing_moves():
    answers = in_team(over_budget, size=3)
    assert answers == [("a ledger: the budget is used up\n  stop", 0.0)] * 3


def fail(who: int) -> None:
    team = joined()
    try:
        if team.place.rank == who:
            raise DatasetError("bad labels", problems=["a.txt:3: no number"], where="data.yaml")
        team.share(None)
    except Exception as error:
        team.leave(error)
        raise


@pytest.mark.parametrize("who", [0, 2])
def test_an_error_of_one_is_the_error_of_all(who: int):
    for error in in_team(fail, who, size=3):
        assert isinstance(error, DatasetError)
        assert "bad labels" in str(error)
        assert "a.txt:3: no number" in str(error)
    # Only where it is not the leader's, it says whose it is.
    assert ("in process 3 of 3" in str(in_team(fail, who, size=3)[0])) == (who == 2)


def crash() -> None:
    team = joined()
    try:
        if team.place.rank == 1:
            raise KeyError("a bug")
        team.share(None)
    except Exception as error:
        team.leave(error)
        raise


def test_an_unexpected_error_of_one_is_told_without_being_unpickled():
    leader, other = in_team(crash)
    assert isinstance(leader, TeamError)
    assert "process 2 of 2 has failed: KeyError: 'a bug'" in str(leader)
    assert isinstance(other, KeyError)


def compare(differing: bool) -> None:
    team = joined()
    mine = team.place.rank if differing else 0
    require_same(team, {"weights": f"digest {mine}", "images": "equal"})


def test_processes_with_other_weights_are_refused_by_all():
    assert in_team(compare, False) == [None, None]
    for error in in_team(compare, True):
        assert isinstance(error, TeamError)
        assert "process 2 of 2 has other weights than the first" in str(error)


def wait_forever(path: str, timeout: float) -> str:
    team = joined(timeout)
    team.share(None)
    Path(path, str(team.place.rank)).touch()
    if team.place.rank == 1:
        time.sleep(600)
    began = time.monotonic()
    with pytest.raises(TeamError, match="ended or cannot be reached"):
        team.share(None)
    return f"{time.monotonic() - began:.1f}"


def test_a_killed_process_stops_the_others_at_once(tmp_path: Path):
    first, second = start_team(wait_forever, str(tmp_path), 60.0)
    while not (tmp_path / "1").exists():
        time.sleep(0.01)
    second.kill()
    assert float(first.answer(within=20)) < 10


def test_a_silent_process_stops_the_others_after_the_timeout(tmp_path: Path):
    first, second = start_team(wait_forever, str(tmp_path), 2.0)
    assert 1 < float(first.answer(within=20)) < 10
    second.kill()


def fail_while_others_wait() -> None:
    team = joined(2.0)
    try:
        with team.patiently():
            if team.leads:
                time.sleep(4)
                raise DatasetError("bad labels", where="data.yaml")
            team.told(None)
    except Exception as error:
        team.leave(error)
        raise


def test_what_the_leader_does_alone_may_take_longer_and_fail():
    for error in in_team(fail_while_others_wait):
        assert isinstance(error, DatasetError)


def two_runs() -> list[list[Any]]:
    shared = []
    for _ in range(2):
        team = joined()
        shared.append(team.share(team.place.rank))
    return shared


def test_a_program_may_train_twice():
    assert in_team(two_runs) == [[[0, 1], [0, 1]]] * 2


def test_streams_of_a_key_are_the_same_wherever_they_are_made():
    for source in (SecureSource(), InsecureSource(5)):
        key = source.key()
        assert source.stream_of(key).random(4).tolist() == source.stream_of(key).random(4).tolist()
        assert source.key() != key


def test_a_team_that_is_never_complete_says_so(monkeypatch: pytest.MonkeyPatch):
    place = {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(TeamError, match="the 2 processes of the run do not find each other"):
        join_team(timeout=1)
