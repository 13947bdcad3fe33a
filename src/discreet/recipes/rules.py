"""The table of rules: one row a setting, its value from public facts, and the reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from discreet.recipes.facts import LARGEST_ZOOM, PublicFacts

DEFAULT_IMGSZ = 640
DEFAULT_TRAINABLE = "film+head"
DEFAULT_EPOCHS = 20
_LARGEST_PLAIN_BATCH = 1024

# Adam rescales each coordinate by its noise, so one learning rate serves any clip bound.
AUTO_OPTIMIZER = "Adam"
AUTO_FINAL_FACTOR = 0.1
AUTO_MOMENTUM = 0.9
# Ultralytics' defaults, which go with any other optimizer: what suits Adam need not suit it.
RATES_OF_OTHERS: Mapping[str, float] = {
    "lr0": 0.01,
    "lrf": 0.01,
    "momentum": 0.937,
    "weight_decay": 0.0005,
}
_AUTO_RATES = {
    "all": 0.002,
    "film": 0.012,
    "whole_head": 0.005,
    "last_neck": 0.005,
    "classes": 0.05,
    "neck_film": 0.05,
    "class_film": 0.05,
    "class_low_rank": 0.05,
}
_AUTO_RATE = 0.02

# A step's noise is about 1 / (ε · n) of a gradient: where that is large, steps are smaller.
_QUIET, _LOUD_FACTOR = 4_000, 0.6

# From so much ε · n on, γ and β of the whole model can be told from noise, and so the features
# themselves learn: sooner where there are many classes, which features that stay cannot tell apart.
# Where the noise was given in place of ε, n alone decides, as at this ε.
_PLENTY, _PLENTY_FOR_MANY, _MANY_CLASSES = 10_000, 5_000, 10
_USUAL_EPSILON = 8.0

# Views of an image agree where its gradient says more than its crop: two are worth their time, four
# where noise is loud. Where it is hardly heard, as many other images tell more.
_VIEWS_OF_LOUD, _VIEWS_OF_QUIET = 4, 2
_QUIET_FOR_VIEWS, _SILENT_FOR_VIEWS = 20_000, 100_000

_NEVER_ENLARGED = ("classify", "segment")

STEPS = 160
_STEPS_ENLARGED = 100
# As many passes as make up so many images in the whole run, between the fewest and the most.
_IMAGES_READ, _IMAGES_READ_ENLARGED = 160_000, 14_000
_FEWEST_PASSES, _MOST_PASSES, _MOST_PASSES_ENLARGED = 10.0, 40.0, 14.0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one setting is chosen.

    Attributes:
        setting: Name of the argument.
        value: Its value from public facts; must not depend on anything else.
        table: The rule in words, for the documentation's table.
        why: The reason.
    """

    setting: str
    value: Callable[[PublicFacts], object]
    table: str
    why: str


def automatic_rate(trainable: str) -> float:
    """Initial learning rate for the automatic optimizer: smaller the more is trained."""
    return min(_AUTO_RATES.get(part, _AUTO_RATE) for part in trainable.split("+"))


def default_batch_size(population: int) -> int:
    """A quarter of the data, at least 64 images and at most 1024: noise shrinks as σ / B."""
    return min(population, max(64, min(_LARGEST_PLAIN_BATCH, population // 4)))


def passes_over(population: int, zoom: int = 1) -> float:
    """Expected passes over the data: 160,000 / n from 10 to 40, enlarged 14,000 / n to 14."""
    images, most = (
        (_IMAGES_READ, _MOST_PASSES)
        if zoom == 1
        else (_IMAGES_READ_ENLARGED, _MOST_PASSES_ENLARGED)
    )
    return min(max(images / population, _FEWEST_PASSES), most)


def _images_read(facts: PublicFacts) -> float:
    return passes_over(facts.population, facts.zoom) * facts.population


def _in_time(facts: PublicFacts, images: float) -> float:
    """So many images, or as many as the time allows."""
    allowed = math.inf if facts.images_in_time is None else facts.images_in_time / facts.views
    return min(images, allowed)


def _usual_steps(facts: PublicFacts) -> int:
    return STEPS if facts.zoom == 1 else _STEPS_ENLARGED


def _steps(facts: PublicFacts) -> int:
    if facts.batch is None:
        return _usual_steps(facts)
    return math.ceil(_in_time(facts, _images_read(facts)) / facts.batch)


def _batch(facts: PublicFacts) -> int:
    images = _images_read(facts)
    if _features_learn(facts) and facts.views > _VIEWS_OF_QUIET:
        images *= _VIEWS_OF_QUIET / facts.views
    batch = round(_in_time(facts, images) / (facts.steps or _usual_steps(facts)))
    return min(facts.population, max(1, batch))


def _plain_batch(facts: PublicFacts) -> int:
    batch = default_batch_size(facts.population)
    if facts.steps is None:
        return batch
    return max(1, round(_in_time(facts, batch * facts.steps) / facts.steps))


def _epochs(facts: PublicFacts) -> int:
    return max(1, math.floor(_in_time(facts, DEFAULT_EPOCHS * facts.population) / facts.population))


def _always(setting: str, value: object, *, why: str, note: str = "") -> Rule:
    """A rule that looks at nothing; its words are its value, and a note."""
    words = f"{value:g}" if isinstance(value, float) else str(value)
    return Rule(setting=setting, value=lambda _facts: value, table=f"{words}{note}", why=why)


def _quietness(facts: PublicFacts) -> float:
    """ε · n: a step's noise is about its inverse."""
    epsilon = _USUAL_EPSILON if facts.epsilon is None else facts.epsilon
    return epsilon * facts.units_of_data


def _plenty(facts: PublicFacts) -> bool:
    """Whether there is enough data for features to learn; measured for boxes only."""
    enough = _PLENTY_FOR_MANY if (facts.classes or 0) >= _MANY_CLASSES else _PLENTY
    return facts.task == "detect" and _quietness(facts) >= enough


def _features_learn(facts: PublicFacts) -> bool:
    """Whether they do, as the part that the user or the rule before has named lets them."""
    whole = {"all", "film"} & {*(facts.trainable or DEFAULT_TRAINABLE).split("+")}
    return bool(whole) and _plenty(facts)


def _trainable(facts: PublicFacts) -> str:
    if facts.task == "pose":
        return "class_film+head"
    return "film+classes" if _plenty(facts) else "class_film+classes"


def _rate(facts: PublicFacts) -> float:
    trainable = facts.trainable or DEFAULT_TRAINABLE
    rate = automatic_rate(trainable)
    loud = facts.epsilon is not None and _quietness(facts) < _QUIET
    loud &= "film" not in trainable.split("+")  # its rate is that of loud noise already
    return rate * _LOUD_FACTOR if loud else rate


def _zoom(facts: PublicFacts) -> int:
    """The largest power of two that brings images to at most half the size of those learned from.

    Labels of a whole image (classification) are found at any size. Masks would become as much
    larger than those that Ultralytics' validation compares them with. Features that learn need it
    not, and their data are better read more often.
    """
    room = (facts.trained_at or 0) / (2 * facts.imgsz)
    as_they_are = facts.task in _NEVER_ENLARGED or _features_learn(facts)
    return 1 if as_they_are or room < 2 else min(1 << int(math.log2(room)), LARGEST_ZOOM)


_SCHEDULE = (
    Rule(
        setting="lr0",
        value=_rate,
        table="0.05 for classes, class_film, class_low_rank and neck_film; 0.02 for head; 0.012 "
        f"for film; 0.005 for whole_head and last_neck; 0.002 for all; {_LOUD_FACTOR:g} of it "
        f"where ε · n < {_QUIET:,}, but for film; thin convolutions 0.3 of it",
        why="the rate of every coordinate is its own under Adam: smaller the more is trained, and "
        "the louder the noise",
    ),
    _always(
        "lrf", AUTO_FINAL_FACTOR, why="small late steps average the noise out", note=", in a line"
    ),
    _always(
        "momentum",
        AUTO_MOMENTUM,
        why="averages the noise of ten steps; β₂ forgets the first steps within the run",
        note=" (β₁; β₂ is 0.99)",
    ),
    _always("weight_decay", 0.0, why="noise regularises more than enough"),
    _always(
        "warmup_epochs",
        0.0,
        why="its steps would spend as much ε as any other, and move the model less",
    ),
)
_OPTIMIZER = _always(
    "optimizer",
    AUTO_OPTIMIZER,
    why="divides each coordinate by its own noise, so that no rate depends on C, and "
    "hardly one on n or ε",
)

# What Ultralytics' defaults do to an image beside flipping it.
_VARIETY = {"hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4, "translate": 0.1, "scale": 0.5}
BEYOND_FLIPS = tuple(_VARIETY)


def _variety(setting: str, usual: float) -> Rule:
    return Rule(
        setting=setting,
        value=lambda facts: usual if _features_learn(facts) else 0.0,
        table=f"{usual:g}, as Ultralytics has it, where features learn; else 0",
        why="features that learn need the variety; a few noisy steps on fixed ones cannot use it, "
        "and cannot overfit without it; flips stay",
    )


_OF_CLASSIFIERS = "of classifiers alone, and a few noisy steps overfit nothing"
_AUGMENTATION = (
    *(_variety(setting, usual) for setting, usual in _VARIETY.items()),
    _always("erasing", 0.0, why=_OF_CLASSIFIERS),
    _always("auto_augment", None, why=_OF_CLASSIFIERS),
)


def _views(facts: PublicFacts) -> int:
    quietness = _quietness(facts)
    if not _features_learn(facts) or quietness >= _SILENT_FOR_VIEWS:
        return 1
    return _VIEWS_OF_QUIET if quietness >= _QUIET_FOR_VIEWS else _VIEWS_OF_LOUD


_ONE_VIEW = _always(
    "views", 1, why="at the same time, more images a step average noise and chance alike"
)

_GAINS = (
    "an image's gradient is cut to one length: the class branch, which starts from nothing, needs "
    "the larger part of it"
)

# The order matters: later rules look at `trainable`, `zoom` and `views`.
PRETRAINED = (
    Rule(
        setting="trainable",
        value=_trainable,
        table=f"film+classes where ε · n ≥ {_PLENTY:,}, or {_PLENTY_FOR_MANY:,} with "
        f"{_MANY_CLASSES} classes or more, and boxes are learned, so that features learn (ε counts "
        f"as {_USUAL_EPSILON:g} where the noise is given); else class_film+classes, and "
        "class_film+head for poses",
        why="the last class convolution, and γ and β: of the whole model where much data or a "
        "large ε lets features learn, else of the way from the backbone's end to the class scores "
        "that the image size needs, since what else trains would get noise and hardly a gradient; "
        "pretrained branches draw boxes, outlines and angles of any class already; what a key "
        "point is, only the data say",
    ),
    Rule(
        setting="zoom",
        value=_zoom,
        table=f"2, 4, … {LARGEST_ZOOM}: what brings images to at most half the size that the "
        "weights have learned from, which is 640 px for Ultralytics' own; else, for classes of "
        "whole images and masks, and where features learn, 1",
        why="objects of images far smaller than those learned from are smaller than any that "
        "pretrained features know; where the model itself enlarges them they are found, and "
        "nothing is spent, for zoom² times the work in training and after; features that learn "
        "find them without",
    ),
    Rule(
        setting="views",
        value=_views,
        table=f"where features learn {_VIEWS_OF_LOUD} for ε · n < {_QUIET_FOR_VIEWS:,} and "
        f"{_VIEWS_OF_QUIET} for ε · n < {_SILENT_FOR_VIEWS:,}; else 1",
        why="an image's gradient is cut to one length, and most of it is about this one crop and "
        "colour: the mean over views says more of the image in the same noise; where noise is "
        "faint, or views hardly differ, other images say more at the same time",
    ),
    Rule(
        setting="steps",
        value=_steps,
        table="160, of enlarged images 100; with batch given, as many as make up the passes, or as "
        "fit into hours",
        why="at the same number of images read, many steps cost little more noise and let Adam "
        "find its way",
    ),
    Rule(
        setting="batch",
        value=_batch,
        table="n · passes / steps, with 160,000 / n passes, from 10 to 40; where images are "
        "enlarged 14,000 / n, from 10 to 14; where features learn from more than "
        f"{_VIEWS_OF_QUIET} views, {_VIEWS_OF_QUIET} / views of it; with hours, no more than fit",
        why="more passes always help a little and cost their time: small data can afford more, "
        "enlarged images fewer",
    ),
    _always(
        "clipping",
        "automatic",
        why="every image gets the same say, and there is no threshold to guess",
    ),
    _OPTIMIZER,
    *_SCHEDULE,
    _always(
        "norm_lr",
        0.6,
        why="γ and β scale whole channels, and move in smaller steps than a class's weights",
        note=" of lr0",
    ),
    _always("box", 2.0, why=_GAINS),
    _always("cls", 1.0, why=_GAINS),
    _always("dfl", 0.5, why=_GAINS),
    _always(
        "balance",
        0.5,
        why="rare classes of an image count more beside its common ones; each image's own labels "
        "decide, so nothing is spent",
    ),
    _always(
        "standardise",
        True,
        why="the inputs of the last class convolution are brought to mean 0 and nearly to variance "
        "1 in every direction, from public γ and β and two public photographs, so that one noise "
        "suits all of its weights and Adam can move them alone; folded back at release",
    ),
    *_AUGMENTATION,
)

SCRATCH = (
    _always("trainable", "all", why="random weights are no use where they stand"),
    Rule(
        setting="epochs",
        value=_epochs,
        table=f"{DEFAULT_EPOCHS}; with hours, as many as fit",
        why="as many passes as a patient user waits for",
    ),
    Rule(
        setting="batch",
        value=_plain_batch,
        table="n / 4, from 64 to 1024; with hours and steps, no more than fit",
        why="noise shrinks as σ / B",
    ),
    _always("clipping", "flat", why="the classical rule"),
    _OPTIMIZER,
    *_SCHEDULE,
    _ONE_VIEW,
)

PLAIN = (
    Rule(
        setting="trainable",
        value=lambda facts: DEFAULT_TRAINABLE if facts.pretrained else "all",
        table="film+head; all from scratch",
        why="all γ and β and the last convolutions",
    ),
    *SCRATCH[1:],
)

# Names as the documentation's tables have them.
RECIPES: Mapping[str, tuple[Rule, ...]] = {
    "auto": PRETRAINED,
    "auto, from scratch": SCRATCH,
    "plain": PLAIN,
}


CHOSEN = frozenset(rule.setting for rules in RECIPES.values() for rule in rules) | {"epochs"}
"""Settings that a recipe chooses where they are left open."""


def rules_of(recipe: str, *, pretrained: bool) -> tuple[Rule, ...]:
    """The rules of a recipe: `auto` or `plain`."""
    return RECIPES["auto, from scratch" if recipe == "auto" and not pretrained else recipe]
