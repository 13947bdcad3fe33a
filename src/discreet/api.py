"""The Python entrance: train privately, get a folder that may leave the building."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from discreet.arguments.plan import PlanArguments, read_plan_arguments
from discreet.arguments.students import read_student_arguments
from discreet.data import DetectionDataset, TaskName, grouped, load_dataset, suspected_subjects
from discreet.errors import ConfigurationError
from discreet.planning import Plan, make_plan
from discreet.planning.cost import Measure
from discreet.recipes import DEFAULT_IMGSZ, classes_learned
from discreet.result import TrainingResult
from discreet.terminal import Reporter, SilentReporter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from discreet.checking import CheckReport
    from discreet.statement.verify import Verification


def train(given: Mapping[str, Any], *, reporter: Reporter | None = None) -> TrainingResult:
    """Train a detector privately.

    Args:
        given: Arguments by name: `data`, `model`, privacy arguments and Ultralytics' own.
        reporter: Who is told of the plan and the progress.

    Raises:
        DiscreetError: Anything that is wrong, before anything is spent or written.
    """
    return _train(given, callbacks={}, reporter=reporter)


def distill(given: Mapping[str, Any], *, reporter: Reporter | None = None) -> TrainingResult:
    """Train a student that learns from a teacher.

    With `data`, the teacher guides private training: see `train`. With `public_data`, it is the
    release of a private run, and labels public images for a student that sees no others; that
    costs nothing, and the teacher's claim is the student's.

    Args:
        given: Arguments by name, `teacher` among them.
        reporter: Who is told of the plan and the progress.

    Raises:
        DiscreetError: Anything that is wrong, before anything is spent or written.
    """
    return _distill(given, callbacks={}, reporter=reporter)


def plan(
    *,
    data: str | Path | None = None,
    n: int | None = None,
    groups: str | Path | None = None,
    group_regex: str | None = None,
    max_images_per_unit: int | None = None,
    epsilon: float | None = None,
    noise_multiplier: float | None = None,
    delta: float | None = None,
    batch: int | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    hours: float | None = None,
    recipe: str = "auto",
    max_grad_norm: float = 1.0,
    clipping: str | None = None,
    accountant: str = "pld",
    relation: str = "add_or_remove_one",
    sampling: str = "poisson",
    largest_batch: int | None = None,
    noise_schedule: str = "constant",
    final_noise: float | None = None,
    trainable: str | None = None,
    zoom: int | None = None,
    model: str | Path | None = None,
    imgsz: int | None = None,
    plot: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Plan:
    """Work out what a run will do and cost. Nothing is spent, and the data set is only read.

    Args:
        data: The data set, of which the training images are counted; this or `n`.
        n: Number of training images.
        groups: CSV file that names the group of each image: units are groups.
        group_regex: Or a regular expression that finds the group in an image's path.
        max_images_per_unit: Most images of a unit that a step reads; 4 if not given.
        epsilon: ε that the run ends at or under; this or `noise_multiplier`.
        noise_multiplier: Standard deviation of the noise over `max_grad_norm`.
        delta: δ; below 1/n if not given.
        batch: Expected number of images in a step; chosen if not given.
        epochs: Expected passes over the images; this or `steps`.
        steps: Noisy updates.
        hours: About how long training may take on this machine.
        recipe: What chooses where nothing is given: "auto" or "plain".
        max_grad_norm: L2 bound that each image's gradient is clipped to.
        clipping: Kind of clipping; chosen if not given.
        accountant: Which accountant promises the ε: "pld", "rdp" or "prv".
        relation: Neighbouring relation: "add_or_remove_one" or "replace_one".
        sampling: How images are drawn: "poisson", "truncated_poisson" or "shuffle".
        largest_batch: Cap on the drawn images of truncated Poisson sampling.
        noise_schedule: How the noise moves: "constant", "step" or "exponential".
        final_noise: Last noise multiplier over the first, with a schedule.
        trainable: Parts of the model that train.
        zoom: How many times the model enlarges the sides of its images; chosen if not given.
        model: Weights or architecture whose speed is measured here; without it, no times, and
            a detector that has learned from images of 640 pixels.
        imgsz: Side of the images in pixels; the usual one of the model's task if not given.
        plot: File for two charts, ending in .svg or .png.
        reporter: Who is told of the progress; silent if not given.

    Returns:
        The plan; `to_text()` is for people, `to_json()` for programs.

    Raises:
        DiscreetError: Anything that is wrong with arguments, data, model or disk.

    Examples:
        >>> plan(n=4, noise_multiplier=1.2, batch=4, steps=100, delta=1e-5).verdict
        ... # doctest: +SKIP
        '4 images, σ = 1.2, 100 full-batch steps spend ε = 69.5: no privacy to speak of; …'
    """
    asked = read_plan_arguments(
        {
            "data": data,
            "n": n,
            "groups": groups,
            "group_regex": group_regex,
            "max_images_per_unit": max_images_per_unit,
            "epsilon": epsilon,
            "noise_multiplier": noise_multiplier,
            "delta": delta,
            "batch": batch,
            "epochs": epochs,
            "steps": steps,
            "hours": hours,
            "recipe": recipe,
            "max_grad_norm": max_grad_norm,
            "clipping": clipping,
            "accountant": accountant,
            "relation": relation,
            "sampling": sampling,
            "largest_batch": largest_batch,
            "noise_schedule": noise_schedule,
            "final_noise": final_noise,
            "trainable": trainable,
            "zoom": zoom,
            "model": model,
            "imgsz": imgsz,
            "plot": plot,
        }
    )
    return plan_as_asked(asked, timed=model is not None or hours is not None, reporter=reporter)


def plan_as_asked(asked: PlanArguments, *, timed: bool, reporter: Reporter | None = None) -> Plan:
    """The same from arguments that are checked already.

    Args:
        asked: The request.
        timed: Whether to measure what a step takes.
        reporter: Who is told of the progress.

    Raises:
        DiscreetError: See `plan`.
    """
    if timed:
        from discreet.arithmetic import refuse_overrides  # late: it imports torch

        refuse_overrides()
    reporter = reporter or SilentReporter()
    population, units, classes = asked.n, None, None
    task: TaskName | None = None
    imgsz, trained_at = DEFAULT_IMGSZ, DEFAULT_IMGSZ
    if asked.model is not None:
        from discreet.yolo.model import known_task, open_source  # late: seconds of imports
        from discreet.yolo.zoom import trained_at as trained_at_of

        source = open_source(asked.model)
        known = known_task(source)
        task, imgsz = known.name, known.imgsz
        trained_at = trained_at_of(source)
    if asked.data is not None:
        reporter.stage(f"reading {asked.data}")
        dataset = load_dataset(
            asked.data, progress=reporter.stage_progress, splits=("train",), task=task
        )
        dataset = grouped(dataset, file=asked.privacy.groups, pattern=asked.privacy.group_regex)
        for notice in dataset.notices:
            reporter.notice(notice)
        for warning in suspected_subjects(dataset):
            reporter.warning(warning)
        _keep_apart(asked.plot, dataset)
        population, classes = dataset.n, classes_learned(dataset.nc, asked.settings)
        if dataset.grouping is not None:
            units = dataset.units(max_images=asked.privacy.images_of_a_unit or 1)
            population = len(units)
    assert population is not None
    measure: Measure | None = None
    if timed:
        # late: seconds of imports
        from discreet.yolo.precision import asked_for_bfloat16, images_of_a_step, wants_bfloat16
        from discreet.yolo.timing import measure_step, usual_device

        half = wants_bfloat16(
            asked_for_bfloat16(asked.settings.get("amp")),
            device := usual_device(),
            images=images_of_a_step(
                asked.privacy, most=population * (asked.privacy.images_of_a_unit or 1)
            ),
            processes=1,
        )
        measure = partial(measure_step, bfloat16=half, device=device)
    made = make_plan(
        asked.privacy,
        population=population,
        units=units,
        model=asked.model,
        imgsz=asked.imgsz or imgsz,
        trained_at=trained_at,
        task=task or "detect",
        classes=classes,
        measure=measure,
        settings=asked.settings,
        reporter=reporter,
    )
    if asked.plot is not None:
        from discreet.planning.plot import write_plot

        write_plot(made, asked.plot)
    return made


def _keep_apart(plot: Path | None, dataset: DetectionDataset) -> None:
    """Refuse a plot among the images: it would replace one, or become one."""
    if plot is None:
        return
    folders = {record.image.parent.resolve() for record in dataset.train}
    if plot.resolve().parent in folders:
        raise ConfigurationError(
            "lies among the training images", where=f"plot={plot}", do="Choose another folder."
        )


def check(
    model: nn.Module,
    loss_fn: Callable[[nn.Module, Any], Tensor],
    batch_fn: Callable[[Sequence[int]], Any],
    *,
    engine: str = "discreet",
    **options: Any,
) -> CheckReport:
    """Check that a step of DP-SGD on any torch model and loss keeps units apart.

    Runs the step with frozen randomness on neighbouring batches and compares: losses and
    gradients of untouched units, norms, the clipped sum, the noise on every parameter, its
    divisor, and what else changes. Model and optimizer are left as they were.

    Args:
        model: Any module, in the mode in which it trains.
        loss_fn: `loss_fn(model, batch)` gives the loss of each unit, (B,), or by term, (B, T).
        batch_fn: `batch_fn([0, 2])` gives the batch of these units; the same each time.
        engine: Name of the engine for per-unit gradients.
        **options: See `discreet.checking.check_step`: `parameters`, `max_grad_norm`,
            `noise_multiplier`, `expected_batch_size`, `optimizer`, `units`, `terms`, `full`,
            `strict`, `without`.

    Raises:
        CheckError: A probe failed, and `strict=True`.
        ConfigurationError: Fewer than two units, nothing that trains, or an unknown engine.

    Examples:
        >>> import torch
        >>> data = torch.randn(4, 3), torch.randn(4)
        >>> def loss(model, batch):
        ...     return (model(batch[0]).squeeze(1) - batch[1]) ** 2
        >>> check(torch.nn.Linear(3, 1), loss, lambda u: (data[0][u], data[1][u])).passed
        True
    """
    from discreet.checking import check_step
    from discreet.gradients import ENGINES, make_engine

    def factory(name: str) -> Any:
        return lambda m, parameters: make_engine(name, m, parameters).per_example_gradients

    others = {name: factory(name) for name in ENGINES if name != engine}
    return check_step(model, loss_fn, batch_fn, engine=factory(engine), engines=others, **options)


def verify(release: str | Path, *, key: str | Path | None = None) -> Verification:
    """Check a release as a stranger would: its bytes, its signature, and ε worked out again.

    Nothing in the folder is run.

    Args:
        release: The folder `release/` of a run.
        key: Public or private key (PEM) of who should have signed it.

    Raises:
        StorageError: The folder or the key cannot be read.

    Examples:
        >>> verify("runs/private/train/release").valid  # doctest: +SKIP
        True
    """
    from discreet.statement.verify import verify_release

    return verify_release(Path(release), key=None if key is None else Path(key))


class PrivateYOLO:
    """A YOLO detector that is trained with differential privacy.

    Args:
        model: Public weights (`yolov8n.pt`, a local file) or an architecture (`yolov8n.yaml`).

    Examples:
        >>> run = PrivateYOLO("yolov8n.pt").train(data="bccd/data.yaml", epsilon=8)
        ... # doctest: +SKIP
        >>> run.spent.epsilon, run.release  # doctest: +SKIP
    """

    def __init__(self, model: str | Path) -> None:
        self.model = str(model)
        self._callbacks: dict[str, list[Callable[[Any], None]]] = {}

    def add_callback(self, event: str, callback: Callable[[Any], None]) -> None:
        """Call `callback(trainer)` at one of Ultralytics' events, such as "on_fit_epoch_end"."""
        self._callbacks.setdefault(event, []).append(callback)

    def train(self, *, reporter: Reporter | None = None, **arguments: Any) -> TrainingResult:
        """Train privately; arguments as on the command line.

        Args:
            reporter: Who is told of the plan and the progress; silent if not given.
            **arguments: `data`, privacy arguments (`epsilon=8`) and Ultralytics' own.

        Raises:
            DiscreetError: Anything that is wrong, before anything is spent or written.
        """
        given = {"model": self.model, **arguments}
        return _train(given, callbacks=self._callbacks, reporter=reporter)

    def distill(
        self,
        teacher: str | Path,
        *,
        reporter: Reporter | None = None,
        **arguments: Any,
    ) -> TrainingResult:
        """Train with a teacher; arguments as on the command line.

        Args:
            teacher: Public weights (with `teacher_data="public"`), or the release folder of a
                private run.
            reporter: Who is told of the progress; silent if not given.
            **arguments: `data` and those of `train` but `public_data`, where the teacher guides
                private training; or `public_data`, `epochs`, … where a private one labels public
                images.

        Raises:
            DiscreetError: Anything that is wrong, before anything is spent or written.
        """
        given = {"model": self.model, "teacher": teacher, **arguments}
        return _distill(given, callbacks=self._callbacks, reporter=reporter)


def _distill(
    given: Mapping[str, Any],
    *,
    callbacks: Mapping[str, list[Callable[[Any], None]]],
    reporter: Reporter | None,
) -> TrainingResult:
    if given.get("public_data") is not None:
        asked = read_student_arguments(given)

        from discreet.yolo.student import train_student  # late: seconds of imports

        return train_student(asked, reporter=reporter or SilentReporter())
    if given.get("teacher") is None:
        raise ConfigurationError("missing", where="teacher", do="Give teacher=…")
    return _train(given, callbacks=callbacks, reporter=reporter)


def _train(
    given: Mapping[str, Any],
    *,
    callbacks: Mapping[str, list[Callable[[Any], None]]],
    reporter: Reporter | None,
) -> TrainingResult:
    # Late: importing Ultralytics and torch takes seconds that `--help` should not.
    from discreet.yolo.train import PrivateDetectionTrainer, default_callbacks

    events = default_callbacks()
    for event, functions in callbacks.items():
        events[event].extend(functions)
    trainer = PrivateDetectionTrainer(overrides=given, _callbacks=events, reporter=reporter)
    trainer.train()
    assert trainer.result is not None
    return trainer.result
