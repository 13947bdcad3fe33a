"""Two stages: a part trains alone at first, at the same price."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from discreet.arguments import PrivacyArguments, split_arguments
from discreet.errors import ConfigurationError
from discreet.planning import plan_training
from discreet.yolo.parts import select_trainable
from discreet.yolo.stages import stages_of
from discreet.yolo.train import PrivateDetectionTrainer

from .conftest import ARCHITECTURE, IMGSZ, Run


def named(*names: str) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.zeros(1)) for name in names}


def test_a_stage_ends_and_the_rest_trains() -> None:
    everything = named("a", "b", "c")
    first, whole = stages_of(everything, steps=10, first={"classes": ["b"]}, first_steps=4)
    assert (first.last_step, whole.last_step) == (4, 10)
    assert set(first.parameters) == {"b"} and whole.parameters == everything
    with first.alone(everything):
        assert [p.requires_grad for p in everything.values()] == [False, True, False]
    assert all(p.requires_grad for p in everything.values())
    assert stages_of(everything, steps=10, first={"classes": ["b"]})[0].last_step == 3
    assert len(stages_of(everything, steps=10)) == 1


def test_stages_without_steps_or_of_other_things_are_refused() -> None:
    everything = named("a", "b")
    for first_steps in (0, 10, 11):
        with pytest.raises(ConfigurationError, match="first_steps"):
            stages_of(everything, steps=10, first={"head": ["a"]}, first_steps=first_steps)
    with pytest.raises(ConfigurationError, match="not all of head is among"):
        stages_of(everything, steps=10, first={"classes": ["a"], "head": ["a", "z"]})
    with pytest.raises(ConfigurationError, match="nothing is added"):
        stages_of(everything, steps=10, first={"head": ["a", "b"]})
    with pytest.raises(ConfigurationError, match="model has nothing of it"):
        stages_of(everything, steps=10, first={"last_neck": []})
    with pytest.raises(ConfigurationError, match="there is no first_trainable"):
        split_arguments({"epsilon": 8, "first_steps": 3})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"trainable": "classes"}, "nothing is added after it with trainable=classes"),
        ({"trainable": "class_film", "first_trainable": "film"}, "nothing is added after it"),
        ({"first_trainable": "classes+classes"}, "each once"),
        ({"first_trainable": "clases"}, "expected all, or other parts"),
        (
            {"trainable": "all", "first_trainable": "class_low_rank"},
            "only where trainable names it, not with trainable=all",
        ),
        ({"steps": 2}, "first_trainable: a third of the run's 2 steps, the default of first_steps"),
        ({"steps": 1}, "a third of the run's 1 step, the"),
        ({"steps": 3, "first_steps": 3}, "first_steps=3: of the run's 3 steps it leaves none"),
    ],
)
def test_mistakes_in_words_alone_are_told_with_the_words(
    given: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        split_arguments({"epsilon": 8, "first_trainable": "classes", **given})
    assert words in str(caught.value)
    assert caught.value.do


def test_a_stage_of_recipe_and_words_is_planned_before_a_model_is_built() -> None:
    def planned(**given: object) -> None:
        plan_training(PrivacyArguments(epsilon=8, **given), population=1000)

    planned(first_trainable="classes")
    with pytest.raises(ConfigurationError, match="nothing is added"):
        planned(first_trainable="classes+class_film")
    with pytest.raises(ConfigurationError, match="leaves none"):
        planned(first_trainable="classes", first_steps=10_000)


def test_parts_that_only_a_model_tells_apart_are_named_before_a_folder_is_made(
    run: Run, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="not all of whole_head") as caught:
        run(trainable="class_film+classes", first_trainable="whole_head")
    assert "first_trainable=whole_head" in str(caught.value)
    assert not (tmp_path / "runs").exists()


class Watched(PrivateDetectionTrainer):
    """Notes which parameters each step changes."""

    moved: list[set[str]]

    def _setup_train(self) -> None:
        super()._setup_train()
        self.moved = []
        self.optimizer.register_step_pre_hook(self._remember)
        self.optimizer.register_step_post_hook(self._compare)

    def _remember(self, *_: object) -> None:
        self._before = {name: p.detach().clone() for name, p in self.parameters.items()}

    def _compare(self, *_: object) -> None:
        now = self.parameters.items()
        self.moved.append({n for n, p in now if not torch.equal(p, self._before[n])})


@pytest.mark.slow
def test_only_the_first_part_moves_at_first(scenes: Path, tmp_path: Path) -> None:
    trainer = Watched(
        overrides={
            "data": str(scenes),
            "model": ARCHITECTURE,
            "epsilon": 8,
            "batch": 8,
            "imgsz": IMGSZ,
            "val": False,
            "project": str(tmp_path),
            "steps": 4,
            "trainable": "class_film+classes",
            "first_trainable": "classes",
            "first_steps": 2,
            "ema": 0.5,
        }
    )
    trainer.train()
    classes = set(select_trainable(trainer.model, "classes", imgsz=trainer.args.imgsz))
    one, two, three, four = trainer.moved[-4:]  # after those that the check tried
    assert one == two == classes
    assert three > classes and four > classes


@pytest.mark.slow
def test_a_run_in_stages_spends_the_same_and_says_what_it_did(run: Run) -> None:
    stages = {"trainable": "class_film+classes", "first_trainable": "classes"}
    plain, staged = run(trainable="class_film+classes"), run(**stages)
    assert staged.claim_valid and staged.spent.epsilon == plain.spent.epsilon
    assert staged.record.configuration["first_trainable"] == "classes"
    # The default is on record as what was taken, not as left out.
    assert staged.record.configuration["first_steps"] == staged.record.steps.charged // 3
    assert staged.record.steps.charged == plain.record.steps.charged
