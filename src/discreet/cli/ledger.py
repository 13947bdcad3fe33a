"""`discreet ledger`: what data sets have spent, over all runs, and what they may."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from discreet.arguments.problems import Problem, gather, wrong_value
from discreet.cli.mode import Call, Facts, Mode, Row
from discreet.errors import ConfigurationError
from discreet.terminal import count, format_delta, format_epsilon

if TYPE_CHECKING:  # the ledger imports numpy and the accounting: late, below
    from discreet.ledger import BudgetLedger, Dataset
    from discreet.units import PrivacyUnits

ACTIONS: Mapping[str, str] = {
    "list": "the data sets, and what was spent on each",
    "show": "one data set: spent, reserved, budget, left, and its runs",
    "set-budget": "limit what may be spent; open runs are cut to it, the newest first",
    "export": "write all that is on record, without the key and the images' fingerprints",
    "settle": "end a run that is dead: what it did not charge is free for others",
}
_ARGUMENTS: Mapping[str, str] = {
    "data": "the data set's YAML file (show, set-budget)",
    "groups": "the groups that its runs had, as in train (show, set-budget)",
    "group_regex": "or the pattern that they had",
    "dataset": "or its id, as listed, its first digits, or its name",
    "epsilon": "the budget's ε, over all runs; none takes it away",
    "delta": "the budget's δ, and in show and list that at which ε is told; by default the "
    "budget's, else that of train: the largest power of ten below 1/n, n the number of units; "
    "1e-5 below 100 units",
    "run": "a run's id, or its first digits (settle)",
    "file": "where to write, FILE.json or FILE.csv (export)",
    "ledger": "the ledger: a file, or postgresql://USER@HOST/NAME; if not given, "
    "DISCREET_LEDGER, else the file in the user's data directory",
}
_NEEDS: Mapping[str, tuple[str, ...]] = {"export": ("file",), "settle": ("run",)}
_TAKES: Mapping[str, tuple[str, ...]] = {
    "list": ("delta",),
    "show": ("data", "groups", "group_regex", "dataset", "delta"),
    "set-budget": ("data", "groups", "group_regex", "dataset", "epsilon", "delta"),
    "export": ("file",),
    "settle": ("run",),
}


def run(call: Call) -> Facts:
    """Do what was asked for, and return its facts."""
    action, given, show = call.word, call.given, call.show
    if action is None or action not in ACTIONS:
        raise _unknown_action(action)
    _check_names(action, given)

    from discreet.arguments.values import Gain, OpenFraction

    delta = _number(given, "delta", OpenFraction)
    epsilon = _number(given, "epsilon", Gain | None)

    from discreet.ledger import BudgetLedger

    ledger = BudgetLedger.open(
        given.get("ledger"), create=action == "set-budget" and "data" in given
    )
    try:
        match action:
            case "list":
                return _list(ledger, delta, show)
            case "show":
                return _show(ledger, given, delta, show)
            case "set-budget":
                return _set_budget(ledger, given, epsilon, delta, show)
            case "export":
                return _export(ledger, Path(given["file"]), show)
            case _:
                return _settle(ledger, given["run"], show)
    finally:
        ledger.close()


def _list(ledger: BudgetLedger, delta: float | None, show: Callable[[str], None]) -> Facts:
    from discreet.ledger.report import dataset_facts

    found = [dataset_facts(ledger, dataset, delta=delta) for dataset in ledger.datasets()]
    lines = [
        f"{'id':<8}  {'units':>7}  {'runs':>4}  {'ε spent':>8}  {'budget':>8}  {'at δ':>6}  name"
    ]
    for facts in found:
        budget = facts["budget"]
        lines.append(
            f"{facts['dataset'][:8]}  {facts['units']:>7}  {facts['runs']:>4}  "
            f"{format_epsilon(facts['epsilon_spent']):>8}  "
            f"{format_epsilon(budget['epsilon']) if budget else 'none':>8}  "
            f"{format_delta(facts['delta']):>6}  {_end_of(facts['name'], 27)}"
        )
    show("\n".join(lines if found else ["no data set is on record"]))
    return {"ledger": ledger.location, "datasets": found}


def _show(
    ledger: BudgetLedger,
    given: Mapping[str, str],
    delta: float | None,
    show: Callable[[str], None],
) -> Facts:
    from discreet.ledger.report import dataset_facts, run_facts, sharing_facts

    dataset = _find(ledger, given)
    facts = dataset_facts(ledger, dataset, delta=delta)
    datasets = {other.number: other for other in ledger.datasets()}
    runs = [run_facts(run, datasets) for run in ledger.runs(dataset)]
    sharing = sharing_facts(ledger, dataset)
    at = f"at δ = {format_delta(facts['delta'])}"
    lines = [
        f"data set {dataset.id[:8]}, {_contents(facts)}: {_end_of(dataset.name, 30)}",
        "",
        f"  spent     ε = {format_epsilon(facts['epsilon_spent'])} {at}, "
        f"by {count(facts['charged_by'], 'run')} on its most charged unit",
        f"  reserved  ε = {format_epsilon(facts['epsilon_reserved'])} if open runs go as far as "
        "they may",
    ]
    if dataset.budget is None:
        lines.append("  budget    none: set one with `discreet ledger set-budget`")
    else:
        lines.append(
            f"  budget    ε = {format_epsilon(dataset.budget.epsilon)} "
            f"at δ = {format_delta(dataset.budget.delta)}"
        )
        if facts["epsilon_left"] is not None:
            # Rounded down: what is left is never less than what is printed.
            left = int(facts["epsilon_left"] * 100) / 100
            lines.append(f"  left      ε may still grow by {left:.2f}")
    if facts["mixed_units"]:
        lines.append("  Its runs had different privacy units: ε is of one image, taken as replaced")
    if facts["unprotected_runs"]:
        lines.append(f"  {count(facts['unprotected_runs'], 'run')} had no guarantee: ε is ∞")
    lines += [
        f"  shares {other['images']} images with {other['dataset'][:8]} "
        f"({_end_of(other['name'], 40)})"
        for other in sharing
    ]
    if runs:
        lines += ["", f"  {'run':<12}  state    charged  reserved   planned  data set  label"]
    for entry in runs:
        lines.append(
            f"  {entry['run'][:12]:<12}  {entry['state']:<5}  {entry['steps_charged']:>9}  "
            f"{entry['steps_reserved']:>8}  {entry['steps_planned']:>8}  "
            f"{entry['dataset'][:8]}  {_end_of(entry['label'], 16)}".rstrip()
        )
    show("\n".join(lines))
    return {"ledger": ledger.location, **facts, "shares_images_with": sharing, "on_record": runs}


def _contents(facts: Facts) -> str:
    """`4 images`, or what the runs protect of them: `2 units (4 images)`."""
    images, units = facts["images"], facts["units"]
    return f"{images} images" if units == images else f"{units} units ({images} images)"


def _set_budget(
    ledger: BudgetLedger,
    given: Mapping[str, str],
    epsilon: float | None,
    delta: float | None,
    show: Callable[[str], None],
) -> Facts:
    from discreet.accounting import default_delta
    from discreet.ledger.report import dataset_facts

    if "dataset" in given:
        dataset = _find(ledger, given)
    else:
        images = _read_images(given)
        dataset = ledger.register(
            name=given["data"], digests=images.digests, units=images.of_images
        )
    if delta is None:
        delta = dataset.budget.delta if dataset.budget else default_delta(ledger.units(dataset))
    change = ledger.set_budget(dataset.id, epsilon, delta)
    facts = dataset_facts(ledger, change.dataset)
    name = f"data set {dataset.id[:8]} ({_end_of(dataset.name, 40)})"
    if epsilon is None:
        lines = [f"{name}:", "  no budget any more"]
    else:
        lines = [
            f"{name}:",
            f"  budget ε = {format_epsilon(epsilon)} at δ = {format_delta(delta)}, "
            f"spent so far ε = {format_epsilon(change.spent.epsilon)}",
        ]
    if change.is_overspent:
        lines.append("  More than that is spent already: no run can start or go on.")
    lines += [f"  run {run} may now go to step {steps}" for run, steps in change.limits.items()]
    show("\n".join(lines))
    return {"ledger": ledger.location, **facts, "limits": change.limits}


def _export(ledger: BudgetLedger, file: Path, show: Callable[[str], None]) -> Facts:
    from discreet.ledger.report import as_csv, everything
    from discreet.storage import write_json, write_text

    if file.suffix.lower() == ".json":
        write_json(file, everything(ledger))
    elif file.suffix.lower() == ".csv":
        write_text(file, as_csv(ledger))
    else:
        raise ConfigurationError(
            "neither JSON nor CSV", where=f"file={file}", do="Write file=NAME.json or NAME.csv."
        )
    show(f"written: {file}")
    return {"ledger": ledger.location, "file": str(file)}


def _settle(ledger: BudgetLedger, text: str, show: Callable[[str], None]) -> Facts:
    found = [run for run in ledger.runs() if run.id == text]
    found = found or [run for run in ledger.runs() if len(text) >= 4 and run.id.startswith(text)]
    if len(found) != 1:
        what = "several runs begin like this" if found else "no run of this id is on record"
        raise ConfigurationError(
            what, where=f"run={text}", do="`discreet ledger show` lists the runs of a data set."
        )
    freed = found[0].allowed - found[0].position
    settled = ledger.settle(found[0].id)
    show(f"run {settled.run_id} has ended: {settled.charged} steps charged, {freed} given back")
    return {
        "ledger": ledger.location,
        "run": settled.run_id,
        "steps_charged": settled.charged,
        "steps_freed": freed,
    }


def _find(ledger: BudgetLedger, given: Mapping[str, str]) -> Dataset:
    if "dataset" in given:
        return ledger.dataset(given["dataset"])
    images = _read_images(given)
    dataset = ledger.find_images(images.digests, images.of_images)
    if dataset is None:
        raise ConfigurationError(
            "exactly these images, in these groups, are not on record",
            where=f"data={given['data']}",
            do="`discreet ledger list` shows what is: give groups= as its runs did, or dataset=ID. "
            "The first run or budget puts a data set there.",
        )
    return dataset


def _read_images(given: Mapping[str, str]) -> PrivacyUnits:
    from discreet.data import grouped, load_dataset

    dataset = load_dataset(given["data"], splits=("train",))
    file, pattern = given.get("groups"), given.get("group_regex")
    return grouped(dataset, file=file, pattern=pattern).units()


def _check_names(action: str, given: Mapping[str, str]) -> None:
    takes = (*_TAKES[action], "ledger")
    problems: list[Problem] = []
    for name, value in given.items():
        if name not in takes:
            close = difflib.get_close_matches(name, takes, n=1)
            what = f"no argument of ledger {action}"
            what += f"; did you mean {close[0]}?" if close else ""
            problems.append(
                Problem(where=f"{name}={value}", what=what, do=f"It takes {', '.join(takes)}.")
            )
    wanted = [name for name in _NEEDS.get(action, ()) if name not in given]
    if action == "set-budget" and "epsilon" not in given:
        wanted.append("epsilon")
    problems += [Problem(where=name, what="missing", do=f"Give {name}=.") for name in wanted]
    if action in ("show", "set-budget") and ("data" in given) == ("dataset" in given):
        both = "data" in given
        problems.append(
            Problem(
                where="data, dataset",
                what="both are given" if both else "missing: no data set is named",
                do="Give data=DATA.yaml, or dataset=ID as listed by `discreet ledger list`.",
            )
        )
    grouping = [name for name in ("groups", "group_regex") if name in given]
    if len(grouping) > 1 or (grouping and "data" not in given):
        what = "more than one way to group" if len(grouping) > 1 else "they belong to data="
        problems.append(
            Problem(where=", ".join(grouping), what=what, do="Give data= and one of them.")
        )
    if problems:
        raise gather(problems)


def _number(given: Mapping[str, str], name: str, kind: object) -> float | None:
    from discreet.arguments.values import check_value

    if name not in given:
        return None
    try:
        value = check_value(kind, given[name])
    except ValueError:
        usual = 8 if name == "epsilon" else None
        raise gather([wrong_value(name, given[name], kind, usual=usual)]) from None
    return float(value) if isinstance(value, int | float) else None


def _unknown_action(word: str | None) -> ConfigurationError:
    known = ", ".join(ACTIONS)
    if word is None:
        return ConfigurationError(
            "an action comes after ledger", do=f"Write `discreet ledger ACTION`: {known}."
        )
    close = difflib.get_close_matches(word.lower(), ACTIONS, n=1)
    guess = f"; did you mean {close[0]}?" if close else ""
    return ConfigurationError(f"unknown action{guess}", where=word, do=f"The actions are {known}.")


def _end_of(text: str, width: int) -> str:
    """The end of a text says most of a path."""
    text = " ".join(text.split())
    return text if len(text) <= width else f"…{text[1 - width :]}"


def _rows() -> dict[str, list[Row]]:
    return {
        "Actions": [(name, None, text) for name, text in ACTIONS.items()],
        "Arguments": [(name, None, text) for name, text in _ARGUMENTS.items()],
    }


MODE = Mode(
    name="ledger",
    summary="show, limit and export what data sets have spent, over all runs",
    usage="ACTION [key=value …]",
    about=(
        "A data set's privacy is spent by all runs on its images, tuning included, whatever the "
        "folder is called. The ledger holds what was charged, and keeps runs within a budget: one "
        "that would cross it is refused before it starts."
    ),
    example="  discreet ledger set-budget data=bccd/data.yaml epsilon=8",
    run=run,
    rows=_rows,
    takes_word=True,
)
