"""The arguments that set the guarantee: what is asked, what it costs, what trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from discreet.arguments.combinations import find_conflicts
from discreet.arguments.problems import Problem, gather, wrong_value
from discreet.arguments.stages import stage_problems
from discreet.arguments.suggestions import unknown_argument
from discreet.arguments.values import (
    Count,
    CountOrZero,
    Decay,
    Expected,
    Flag,
    Fraction,
    Gain,
    NoiseMultiplier,
    OpenFraction,
    Path,
    PathOrFlag,
    PositiveNumber,
    Text,
    Verbatim,
    Views,
    Zoom,
    check_value,
)
from discreet.privacy import DEFAULT_MAX_IMAGES_PER_UNIT, PrivacyUnit

TRACKERS = ("tensorboard", "mlflow", "wandb")
TRAINABLE_PARTS = (
    "all", "head", "film", "whole_head", "classes", "neck_film", "class_film", "class_low_rank",
    "last_neck",
)  # fmt: skip


def _known_parts(text: str) -> str:
    parts = text.split("+")
    if not set(parts) <= set(TRAINABLE_PARTS) or len(set(parts)) < len(parts):
        raise ValueError("unknown or repeated part")
    if "all" in parts and len(parts) > 1:
        raise ValueError("all leaves nothing to add")
    return text


def _known_trackers(text: str) -> str:
    names = text.split("+")
    if not set(names) <= set(TRACKERS) or len(set(names)) < len(names):
        raise ValueError("unknown or repeated tracker")
    return text


Trainable = Annotated[
    str,
    AfterValidator(_known_parts),
    Verbatim(),
    Expected(
        f"all, or other parts, each once, joined by + from {', '.join(TRAINABLE_PARTS[1:])}",
        example="classes",
    ),
]
Trackers = Annotated[
    str,
    AfterValidator(_known_trackers),
    Verbatim(),
    Expected(f"one or more of {', '.join(TRACKERS)}, joined by +", example="tensorboard"),
]


class PrivacyArguments(BaseModel):
    """Privacy arguments of a run; immutable, checked on construction.

    Exactly one of `epsilon` and `noise_multiplier` is set, and at most one of `epochs` and
    `steps`. What is None is left to the recipe. Values may be text from a command line.

    Raises:
        ConfigurationError: Values are wrong, unknown or contradict one another; all problems
            are in the one error.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    epsilon: PositiveNumber | None = Field(
        default=None, description="ε that the run ends at or under; this or noise_multiplier"
    )
    noise_multiplier: NoiseMultiplier | None = Field(
        default=None,
        description="standard deviation of the noise over max_grad_norm; 0 is not private",
    )
    delta: OpenFraction | None = Field(
        default=None,
        description="δ; by default the largest power of ten below 1/n, n the number of units; "
        "1e-5 below 100 units",
    )
    groups: Path | None = Field(
        default=None,
        description="CSV file with the columns split, image, group: all images of a group (one "
        "patient, person, camera or video segment) are one privacy unit",
    )
    group_regex: Text | None = Field(
        default=None,
        description="or a regular expression on an image's path below the data set's folder, "
        "whose one group in parentheses is the key, as '([^/_]+)_[0-9]+[.]'",
    )
    max_images_per_unit: Count | None = Field(
        default=None,
        description=f"most images of a unit that a step reads, chosen at random; with groups "
        f"{DEFAULT_MAX_IMAGES_PER_UNIT} if left out",
    )
    recipe: Literal["auto", "plain"] = Field(
        default="auto",
        description="chooses from public numbers what is left out; plain: film+head, flat clipping",
    )
    max_grad_norm: PositiveNumber = Field(
        default=1.0, description="L2 bound that each image's gradient is clipped to"
    )
    clipping: Literal["flat", "automatic", "per_layer", "per_block", "adaptive"] | None = Field(
        default=None,
        description="flat: one bound on the whole gradient of an image; automatic: every image's "
        "gradient is normalised to it; per_layer, per_block: a bound for each layer, or for "
        "backbone, neck, box and class branch; adaptive: flat, the bound follows the median",
    )
    batch: Count | None = Field(
        default=None,
        description="expected number of images in a step, of any size; if left out, chosen",
    )
    micro_batch: Count | None = Field(
        default=None,
        description="most images held in memory at once, or all images and views of one unit where "
        "they are more; if left out, by memory",
    )
    feature_cache: Gain | None = Field(
        default=None,
        description="GiB of memory for what layers that do not train give for images; 0 keeps "
        "nothing; if left out, by memory, at most 2",
    )
    epochs: Count | None = Field(
        default=None, description="passes over the images; if left out, chosen"
    )
    steps: Count | None = Field(default=None, description="noisy updates; instead of epochs")
    hours: PositiveNumber | None = Field(
        default=None,
        description="about how long training may take on this machine: as many images are read as "
        "fit, by the time that steps of blank ones take before the run; neither a teacher's time "
        "nor what is saved on images that are read again is counted",
    )
    norm: Literal["frozen", "group"] | None = Field(
        default=None,
        description="frozen: public BatchNorm statistics (default with pretrained weights); "
        "group: GroupNorm (default from scratch)",
    )
    trainable: Trainable | None = Field(
        default=None,
        description="parts that train: all, head (last convolutions), film (γ/β of the "
        "normalisations), whole_head, classes (last class convolution), neck_film (γ/β behind the "
        "backbone), class_film (those of them that class scores need), class_low_rank "
        "(products of two thin convolutions beside those before the class scores), last_neck (last "
        "blocks of the neck); joined by +, as film+head",
    )
    first_trainable: Trainable | None = Field(
        default=None,
        description="a part of trainable that trains alone at first, as classes or head",
    )
    first_steps: Count | None = Field(
        default=None, description="steps of that; a third of all if left out"
    )
    zoom: Zoom | None = Field(
        default=None,
        description="how many times the model enlarges the sides of its images before its first "
        "layer; if left out, chosen by the sizes of these images and of those that the weights "
        "have learned from, and by ε and the number of images",
    )
    norm_lr: PositiveNumber | None = Field(
        default=None, description="learning rate of γ and β of the normalisations, over lr0"
    )
    ema: Decay | None = Field(
        default=None,
        description="decay of a moving average of the noised weights, which is then released: 0.9 "
        "averages some ten steps; if left out, the last weights are",
    )
    balance: Fraction | None = Field(
        default=None,
        description="weight of an image's rare classes beside its common ones: 0 all objects "
        "count alike, 1 all classes do",
    )
    standardise: Flag | None = Field(
        default=None,
        description="scale and decorrelate the inputs of the last class convolution by public "
        "statistics while it trains",
    )
    views: Views | None = Field(
        default=None,
        description="augmented views of each drawn image, whose mean gradient is clipped: less "
        "chance in it, for as many times the work; all are held in memory at once",
    )
    public_data: Path | None = Field(
        default=None,
        description="data set of public images, by your word, in the same format: mosaic= and "
        "mixup= take a private image's partners from there",
    )
    teacher: Path | None = Field(
        default=None,
        description="model that guides the training: public weights (.pt), or the release folder "
        "of a private run, whose ε is then part of this run's",
    )
    teacher_data: Literal["public"] | None = Field(
        default=None,
        description="public: your word that the teacher's weights, and all that they were trained "
        "on, are public",
    )
    teacher_gain: Gain | None = Field(
        default=None, description="gain of the teacher's part of the loss; 1 if left out"
    )
    sampling: Literal["poisson", "truncated_poisson", "shuffle"] = Field(
        default="poisson",
        description="poisson; truncated_poisson: at most largest_batch images a step; shuffle: "
        "every image once an epoch, at the much larger ε that is proven for it",
    )
    largest_batch: Count | None = Field(
        default=None, description="cap on the drawn images of sampling=truncated_poisson"
    )
    noise_schedule: Literal["constant", "step", "exponential"] = Field(
        default="constant",
        description="how the noise moves from the first step to the last; epsilon sets its scale",
    )
    final_noise: PositiveNumber | None = Field(
        default=None,
        description="noise of the last step over that of the first; 0.5 with a schedule",
    )
    relation: Literal["add_or_remove_one", "replace_one"] = Field(
        default="add_or_remove_one",
        description="what neighbouring data sets differ in: one unit more or less, or one replaced "
        "by another, at about twice the ε",
    )
    accountant: Literal["pld", "rdp", "prv"] = Field(
        default="pld", description="pld (tight), rdp (looser, classical) or prv (Opacus)"
    )
    ledger: Text | None = Field(
        default=None,
        description="file or postgresql:// address of the ledger of all runs; if left out, "
        "DISCREET_LEDGER, or one of this user's",
    )
    sign: PathOrFlag = Field(
        default=True,
        description="key file that signs the release (Ed25519, PEM); True: a key of this user's, "
        "made on first use; False: not signed",
    )
    val_data: Literal["public", "private"] = Field(
        default="private",
        description="private: validation metrics stay in internal/; public: released",
    )
    track: Trackers | None = Field(
        default=None,
        description="tensorboard, mlflow, wandb, joined by +: told of the public facts of the "
        "run once it is released",
    )
    engine: Literal["discreet", "opacus", "reference"] = Field(
        default="discreet", description="per-image gradients: discreet, opacus or reference"
    )
    team_timeout: PositiveNumber = Field(
        default=600.0,
        description="seconds after which a run of several processes gives up on one that is silent",
    )
    insecure_seed: CountOrZero | None = Field(
        default=None, description="repeatable noise and sampling, for tests: not private"
    )

    def __init__(self, **given: object) -> None:
        problems = find_problems(given)
        if problems:
            raise gather(problems)
        values = {name: _read(name, value) for name, value in given.items()}
        super().__init__(**values)

    @property
    def unit(self) -> PrivacyUnit:
        """What one record is."""
        grouped = self.groups is not None or self.group_regex is not None
        return PrivacyUnit.GROUP if grouped else PrivacyUnit.IMAGE

    @property
    def images_of_a_unit(self) -> int | None:
        """Most images of a unit that a step reads; None where a unit is one image."""
        if self.unit is PrivacyUnit.IMAGE:
            return None
        return self.max_images_per_unit or DEFAULT_MAX_IMAGES_PER_UNIT

    @property
    def is_private(self) -> bool:
        """Whether a run with these arguments can carry a guarantee at all."""
        return self.noise_multiplier != 0 and self.insecure_seed is None


def names() -> tuple[str, ...]:
    """Names of all privacy arguments, in the order in which help lists them."""
    return tuple(PrivacyArguments.model_fields)


def kind_of(name: str) -> object:
    """The kind of value of a privacy argument, as a type annotation."""
    field = PrivacyArguments.model_fields[name]
    # pydantic moves the outermost Annotated metadata to the field: put it back.
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _read(name: str, value: object) -> object:
    return check_value(kind_of(name), value)


def find_problems(given: Mapping[str, object]) -> list[Problem]:
    """Everything wrong with privacy arguments, given by name."""
    problems: list[Problem] = []
    for name, value in given.items():
        if name not in PrivacyArguments.model_fields:
            problems.append(unknown_argument(name, value, names()))
            continue
        try:
            _read(name, value)
        except ValueError:
            usual = PrivacyArguments.model_fields[name].default
            problems.append(wrong_value(name, value, kind_of(name), usual=usual))
    others = find_conflicts(given)
    if not problems:  # what is read below is of its kind
        others += _stage_problems(given)
    return [*problems, *others]


def _stage_problems(given: Mapping[str, object]) -> list[Problem]:
    """What is wrong with a first stage, as far as the recipe has nothing to choose."""
    names = ("first_trainable", "trainable", "steps", "first_steps")
    first, trainable, steps, first_steps = (_read(name, given.get(name)) for name in names)
    if not isinstance(first, str):
        return []
    return stage_problems(
        first,
        trainable=trainable if isinstance(trainable, str) else None,
        steps=steps if isinstance(steps, int) else None,
        first_steps=first_steps if isinstance(first_steps, int) else None,
    )
