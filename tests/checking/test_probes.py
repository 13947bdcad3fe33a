"""Every probe finds a mistake of its own, which nothing finds when the probe is taken out."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from discreet.checking import PROBES, run_checks
from discreet.errors import CheckError

from ..planted.catalogue import CATALOGUE
from ..planted.plant import Plant
from ..planted.runs import Step
from ..planted.small_step import Net, subject


def test_a_correct_step_passes_everything():
    report = run_checks(subject(), full=True)
    assert report.passed, report.to_text()
    assert [f.probe for f in report.findings if f.verdict != "passed"] == ["engines"]
    report.require()


# Mistakes that the core shows in a small step, and which of its probes see it.
PLANTS = [plant for plant in CATALOGUE if Step in plant.runs and plant.probes]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_each_mistake_is_found_by_its_probes_alone(plant: Plant, tmp_path: Path):
    run = Step(tmp_path, tmp_path)
    with plant.planted(run):
        report = run_checks(run.subject())
        assert {finding.probe for finding in report.violations} == plant.probes, report.to_text()
        with pytest.raises(CheckError, match="not private"):
            report.require()
        assert run_checks(run.subject(), without=plant.probes).passed


def test_every_probe_has_a_mistake_to_find():
    assert {probe for plant in PLANTS for probe in plant.probes} | {"engines"} == set(PROBES)


def test_engines_that_disagree_are_told():
    def plant():
        made = subject()

        def doubled(batch):
            images, targets = batch
            return made.gradients_of((images * 1.01, targets))

        return subject(made.model, engines={"other": doubled})

    report = run_checks(plant(), full=True)
    assert [f.where for f in report.violations] == [("engine other",)]
    assert run_checks(plant(), full=True, without={"engines"}).passed


@pytest.mark.parametrize("engine", ["discreet", "opacus", "reference"])
def test_a_coupling_of_one_in_a_thousand_is_seen(engine: str):
    class Leaky(nn.Module):
        def forward(self, x):
            return x + 1e-3 * x.roll(1, 0)

    report = run_checks(subject(Net(Leaky()), engine=engine))
    failed = {finding.probe: finding for finding in report.violations}
    told = failed["engine" if engine == "discreet" else "contributions"]
    assert told.where == ("norm (Leaky)",), report.to_text()


@pytest.mark.parametrize("share", [1e-3])
def test_a_loss_that_knows_how_many_units_there_are_is_seen(share: float):
    def losses(model, batch):
        return (model(batch[0]) - batch[1]) ** 2 * (1 + share * len(batch[1]))

    report = run_checks(subject(losses=losses))
    assert {"losses", "contributions"} <= {f.probe for f in report.violations}, report.to_text()


def test_everything_is_left_as_it_was():
    made = subject()
    made.model.eval()
    made.model.idle.bias.grad = torch.ones(6)
    before = copy.deepcopy(made.model.state_dict())
    optimizer = copy.deepcopy(made.optimizer.state_dict())
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run_checks(made, full=True)
    assert torch.equal(torch.rand(3), expected)
    assert not any(module.training for module in made.model.modules())
    assert torch.equal(made.model.idle.bias.grad, torch.ones(6))
    assert made.optimizer.state_dict() == optimizer
    for name, value in made.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_summary_holds_nothing_that_was_measured():
    report = run_checks(subject())
    summary = report.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert set(summary) == {"version", "passed", "probes"}
    assert all(set(probe) == {"name", "verdict"} for probe in summary["probes"])
    told = json.dumps(report.to_json())
    assert "deviation" in told
    assert all(f.probe in report.to_text() for f in report.findings)


def test_deviations_are_told_to_one_digit():
    for probe in run_checks(subject()).to_json()["probes"]:
        if probe["deviation"]:
            assert probe["deviation"] == float(f"{probe['deviation']:.0e}")
