from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from discreet.clipping import FlatClipping
from discreet.noise import GaussianMechanism
from discreet.randomness import SecureSource
from discreet.step import StepReport, private_step


class Rows:
    """Gradients of units for one parameter `w` (3,) and an untouched one `idle` (2,)."""

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self.rows = torch.tensor(rows).reshape(-1, 3)

    @property
    def squared_norms(self) -> dict[str, Tensor]:
        return {"w": self.rows.pow(2).sum(1), "idle": torch.zeros(len(self.rows))}

    def weighted_sum(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"w": weights["w"] @ self.rows, "idle": torch.zeros(2)}


class Run:
    """A model of two parameters under plain SGD at rate 1, and what was charged."""

    def __init__(self) -> None:
        self.parameters = {"w": nn.Parameter(torch.zeros(3)), "idle": nn.Parameter(torch.zeros(2))}
        self.optimizer = torch.optim.SGD(self.parameters.values(), lr=1.0)
        self.charged: list[float] = []

    def charge(self) -> None:
        # What an observer of the weights could see at the moment of the charge.
        self.charged.append(sum(float(p.detach().abs().sum()) for p in self.parameters.values()))

    def step(self, parts: Sequence[Rows], *, sigma: float = 0.0, **kwargs) -> StepReport:
        options = {"expected_batch_size": 4.0, "gradients_of": lambda rows: rows} | kwargs
        return private_step(
            parts,
            parameters=self.parameters,
            clipping=FlatClipping(max_grad_norm=1.0),
            mechanism=GaussianMechanism(noise_multiplier=sigma),
            source=SecureSource(),
            charge=options.pop("charge", self.charge),
            optimizer=self.optimizer,
            **options,
        )


def test_sum_is_divided_by_the_expected_batch_size_not_by_the_drawn():
    run = Run()
    report = run.step([Rows([[3.0, 0, 0], [0, 0.5, 0]])])
    assert torch.allclose(run.parameters["w"], -torch.tensor([1.0, 0.5, 0]) / 4, atol=1e-5)
    assert report == StepReport(units=2, clipped=1, non_finite=0)


def test_clipping_is_per_unit_across_micro_batches():
    one, two = Run(), Run()
    rows = [[3.0, 0, 0], [0, 5.0, 0], [0, 0, 0.25]]
    one.step([Rows(rows)])
    two.step([Rows(rows[:1]), Rows(rows[1:])])
    assert torch.equal(one.parameters["w"], two.parameters["w"])


def test_an_empty_draw_is_a_charged_step_of_pure_noise_on_every_parameter():
    run = Run()
    report = run.step([], sigma=1.0)
    assert report.units == 0
    assert len(run.charged) == 1
    assert torch.all(run.parameters["w"] != 0)
    assert torch.all(run.parameters["idle"] != 0)


def test_noise_is_added_once_whatever_the_number_of_micro_batches():
    def spread(parts: int) -> float:
        values = []
        for _ in range(400):
            run = Run()
            run.step([Rows([[0.0, 0, 0]])] * parts, sigma=1.0, expected_batch_size=1.0)
            values += run.parameters["w"].tolist() + run.parameters["idle"].tolist()
        return float(torch.tensor(values).std())

    for parts in (1, 9):  # 2,000 samples: standard error 1.6 %
        assert abs(spread(parts) - 1.0) < 0.08


def test_the_charge_comes_before_anything_is_visible():
    run = Run()
    run.step([Rows([[1.0, 0, 0]])], sigma=1.0)
    assert run.charged == [0.0]


def test_a_refused_charge_leaves_the_model_untouched():
    run = Run()

    def refuse() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run.step([Rows([[1.0, 0, 0]])], sigma=1.0, charge=refuse)
    assert torch.all(run.parameters["w"] == 0)


@pytest.fixture
def interrupting() -> Iterator[None]:
    """SIGINT as a terminal has it, and SIGTERM as our command line; in the background, neither."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("interrupting")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_during_the_charge_waits_for_the_update(number: signal.Signals):
    run = Run()

    def interrupted() -> None:
        os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        run.step([Rows([[1.0, 0, 0]])], charge=interrupted)
    assert run.parameters["w"][0] != 0


def test_out_of_memory_splits_the_part_and_loses_no_unit():
    rows = Rows([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    attempts = []

    def gradients_of(part: Rows) -> Rows:
        attempts.append(len(part.rows))
        if len(part.rows) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return part

    def split(part: Rows) -> list[Rows]:
        half = len(part.rows) // 2
        return [Rows(part.rows[:half].tolist()), Rows(part.rows[half:].tolist())]

    run, plain = Run(), Run()
    report = run.step([rows], gradients_of=gradients_of, split=split)
    plain.step([rows])
    assert report.units == 3
    assert torch.allclose(run.parameters["w"], plain.parameters["w"])
    assert attempts[0] == 3


def test_other_errors_are_not_taken_for_memory():
    def fail(part: Rows) -> Rows:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        Run().step([Rows([[1.0, 0, 0]])], gradients_of=fail, split=lambda part: [part, part])


def test_a_gradient_without_an_entry_for_a_trained_parameter_is_refused():
    class Partial(Rows):
        def weighted_sum(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {"w": weights["w"] @ self.rows}

    with pytest.raises(RuntimeError, match="same names"):
        Run().step([Partial([[1.0, 0, 0]])])


def test_gradients_are_not_rounded_by_how_many_are_drawn():
    """TF32 is what cuDNN takes for float32, by kernels that differ from batch to batch."""
    found: list[bool] = []

    def gradients_of(rows: Rows) -> Rows:
        found.append(torch.backends.cudnn.allow_tf32)
        return rows

    torch.backends.cudnn.allow_tf32 = True  # as torch has it
    Run().step([Rows([[1.0, 2.0, 3.0]]), Rows([[0.0, 1.0, 0.0]])], gradients_of=gradients_of)
    assert found == [False, False] and torch.backends.cudnn.allow_tf32
