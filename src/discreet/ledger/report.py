"""What a ledger holds, as plain values to print and export: never its key, never an image."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from discreet.accounting import default_delta, make_accountant
from discreet.ledger.budget import BudgetLedger
from discreet.ledger.overlaps import shared_with
from discreet.ledger.rows import Dataset, Run
from discreet.ledger.tables import ENDED, SCHEMA
from discreet.privacy import NeighboringRelation

Facts = dict[str, Any]


def dataset_facts(ledger: BudgetLedger, dataset: Dataset, *, delta: float | None = None) -> Facts:
    """What a data set has spent, reserved and left; ε by privacy loss distributions.

    Args:
        ledger: The ledger.
        dataset: The data set.
        delta: δ at which ε is told; that of the budget if not given, and without a budget that of
            a run on so many units.

    Returns:
        `epsilon_spent` over all charges, `epsilon_reserved` if open runs go as far as they may,
        and `epsilon_left` by which the latter may still grow: None without a budget at this δ.
    """
    budget, known = dataset.budget, _known(ledger, dataset)
    at = delta or (budget.delta if budget else default_delta(known["units"]))
    relation = budget.relation if budget else NeighboringRelation.ADD_OR_REMOVE_ONE
    accountant = make_accountant("pld", relation=relation)
    spent = ledger.total(dataset.id, delta=at, accountant=accountant)
    reserved = ledger.total(dataset.id, delta=at, accountant=accountant, reserved=True)
    left = budget.epsilon - reserved.epsilon if budget and budget.delta == at else None
    return {
        **known,
        "delta": at,
        "epsilon_spent": spent.epsilon,
        "epsilon_reserved": reserved.epsilon,
        "epsilon_left": None if left is None else max(left, 0.0),
        "charged_by": spent.runs,
        "unprotected_runs": spent.unprotected_runs,
        "mixed_units": spent.mixed,
    }


def run_facts(run: Run, datasets: Mapping[int, Dataset]) -> Facts:
    """A run: what it planned, charged and may still go."""
    return {
        "run": run.id,
        "label": run.label,
        "dataset": datasets[run.dataset].id,
        "state": "ended" if run.state == ENDED else "open",
        "private": run.private,
        "steps_charged": run.position,
        "steps_reserved": run.allowed - run.position,
        "steps_planned": run.steps,
        "accountant": run.accountant,
        "neighboring_relation": run.relation,
        "delta": run.delta,
        "started": run.started,
        "updated": run.updated,
    }


def sharing_facts(ledger: BudgetLedger, dataset: Dataset) -> list[Facts]:
    """The other data sets that share images with one, and how many."""
    known = {other.number: other for other in ledger.datasets()}
    return [
        {"dataset": known[number].id, "name": known[number].name, "images": count}
        for number, count in sorted(shared_with(dataset, known).items())
    ]


def everything(ledger: BudgetLedger) -> Facts:
    """All that is on record, apart from the key and the images' fingerprints."""
    datasets = {dataset.number: dataset for dataset in ledger.datasets()}
    return {
        "ledger": ledger.ledger_id,
        "schema": SCHEMA,
        "datasets": [
            {**_known(ledger, dataset), "shares_images_with": sharing_facts(ledger, dataset)}
            for dataset in datasets.values()
        ],
        "runs": [
            {
                **run_facts(run, datasets),
                "planned": [event.to_json() for event in run.plan],
                "charged": [event.to_json() for event in run.first(run.position)],
            }
            for run in ledger.runs()
        ],
    }


def as_csv(ledger: BudgetLedger) -> str:
    """One line per run."""
    datasets = {dataset.number: dataset for dataset in ledger.datasets()}
    rows = [
        {**run_facts(run, datasets), "name": datasets[run.dataset].name} for run in ledger.runs()
    ]
    return _csv(rows, ["run", "label", "dataset", "name", "state", "private", "steps_charged",
                       "steps_reserved", "steps_planned", "accountant", "neighboring_relation",
                       "delta", "started", "updated"])  # fmt: skip


def _csv(rows: Sequence[Facts], columns: Sequence[str]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _known(ledger: BudgetLedger, dataset: Dataset) -> Facts:
    budget = dataset.budget
    return {
        "dataset": dataset.id,
        "name": dataset.name,
        "images": dataset.images,
        "units": ledger.units(dataset),
        "runs": dataset.runs,
        "created": dataset.created,
        "budget": None
        if budget is None
        else {
            "epsilon": budget.epsilon,
            "delta": budget.delta,
            "neighboring_relation": budget.relation.value,
        },
    }
