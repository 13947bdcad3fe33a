"""From everything a user gave to the arguments of the guarantee and those of Ultralytics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from discreet.arguments import privacy
from discreet.arguments.accepted import ACCEPTED, OWN_MEANING
from discreet.arguments.policy import UNSET, Argument, Kind, harmless_value
from discreet.arguments.privacy import PrivacyArguments
from discreet.arguments.problems import Problem, gather, wrong_value
from discreet.arguments.refused import FIXED, IRRELEVANT, OUTSIDE_CONFIGURATION, REFUSED
from discreet.arguments.suggestions import unknown_argument
from discreet.arguments.values import check_value, parse_value, shown
from discreet.errors import ConfigurationError

ULTRALYTICS: Mapping[str, Argument] = {
    **{name: entry for section in ACCEPTED.values() for name, entry in section.items()},
    **OWN_MEANING,
    **REFUSED,
    **FIXED,
    **IRRELEVANT,
}


def known_names() -> tuple[str, ...]:
    """Every argument that has a meaning or an answer: privacy arguments first."""
    return tuple(dict.fromkeys([*privacy.names(), *ULTRALYTICS]))


def usable_names() -> tuple[str, ...]:
    """Every argument that a private run can be given: privacy arguments first."""
    accepted = (name for name, entry in ULTRALYTICS.items() if entry.kind is Kind.ACCEPTED)
    return (*privacy.names(), *accepted)


def default_of(name: str) -> object:
    """What an argument is if it is not given; None where that is worked out."""
    if name in privacy.names():
        return privacy.PrivacyArguments.model_fields[name].default
    return ULTRALYTICS[name].default


def is_flag(name: str) -> bool:
    """Whether the bare word means True: `resume` for `resume=True`."""
    entry = ULTRALYTICS.get(name)
    return entry is not None and isinstance(entry.default, bool)


def neutral_values() -> dict[str, object]:
    """What private runs set whatever Ultralytics' default is."""
    return {
        name: entry.ours
        for name, entry in ULTRALYTICS.items()
        if entry.ours is not UNSET and name not in OUTSIDE_CONFIGURATION
    }


def split_arguments(
    given: Mapping[str, object], *, required: Sequence[str] = ()
) -> tuple[PrivacyArguments, dict[str, object]]:
    """Check all arguments and split them.

    Values may be text from a command line or Python values. `cfg`, the path of a YAML file of
    further arguments, is read here; arguments given directly win over the file. A file may be a
    copy of Ultralytics' whole configuration: what it lists at Ultralytics' default is then not
    taken as a wish for what private runs refuse.

    Args:
        given: Argument name to value.
        required: Names that must be among them, such as `data`.

    Returns:
        The privacy arguments, and overrides for Ultralytics: the accepted arguments that were
        given, and the neutral value of every argument that private runs hold fixed. `epochs`
        and `batch` are among the privacy arguments only.

    Raises:
        ConfigurationError: Arguments are unknown, wrong or contradict one another; all of them
            are in the one error. It is an `UnsafeArgumentError` if one would void the guarantee.
    """
    given = with_file(given)
    problems = [
        Problem(where=name, what="missing", do=f"Give {name}=…")
        for name in required
        if given.get(name) is None
    ]
    found, overrides = find_problems(given)
    if problems := [*problems, *found]:
        raise gather(problems)
    overrides.pop("cfg", None)
    own = {name: value for name, value in given.items() if name in privacy.names()}
    return PrivacyArguments(**own), overrides


def find_problems(given: Mapping[str, object]) -> tuple[list[Problem], dict[str, object]]:
    """Everything wrong with arguments, and the overrides of those that are not.

    Args:
        given: Argument name to value, those of the file that `cfg` names among them.
    """
    privacy_names = privacy.names()
    overrides = neutral_values()
    problems: list[Problem] = []
    public = _literal(given.get("public_data")) is not None
    partners = public or _several(given.get("views"))
    for name, value in given.items():
        if name in privacy_names:
            continue
        entry = ULTRALYTICS.get(name)
        if entry is None:
            problems.append(unknown_argument(name, value, known_names(), preferred=usable_names()))
        elif entry.kind is Kind.ACCEPTED or (partners and entry.with_partners):
            values = entry.with_partners or entry.values
            try:
                overrides[name] = check_value(values, value)
            except ValueError:
                problems.append(wrong_value(name, value, values, usual=entry.default))
        else:
            known = harmless_value(entry, _literal(value))
            if known is UNSET:
                problems.append(_refusal(name, value, entry))
            elif name in overrides:
                overrides[name] = known
    if public and not (overrides["mosaic"] or overrides["mixup"]):
        what = "nothing asks for these images"
        do = "Give mosaic= or mixup= with it, the chance that an image is mixed; or leave it out."
        problems.append(Problem(where="public_data", what=what, do=do))
    own = {name: value for name, value in given.items() if name in privacy_names}
    problems.extend(privacy.find_problems(own))
    return problems, overrides


def _several(views: object) -> bool:
    value = _literal(views)
    return isinstance(value, int) and value > 1


def _literal(value: object) -> object:
    return parse_value(value) if isinstance(value, str) else value


def _refusal(name: str, value: object, entry: Argument) -> Problem:
    return Problem(
        where=shown(name, value),
        what=f"refused: {entry.why}" if entry.kind is Kind.REFUSED else entry.why,
        do=entry.instead or "Leave it out.",
        unsafe=entry.kind is Kind.REFUSED,
    )


def with_file(given: Mapping[str, object]) -> dict[str, object]:
    """Arguments with those of the file that `cfg` names, if any, below them; without `cfg`.

    Args:
        given: Argument name to value.

    Raises:
        ConfigurationError: `cfg` is no path, or its file cannot be read, is not YAML, holds
            anything but `key: value` lines, or names another `cfg`.
    """
    if given.get("cfg") is None:
        return dict(given)
    try:
        path = str(check_value(ULTRALYTICS["cfg"].values, given["cfg"]))
    except ValueError:
        what, do = "expected the path of a YAML file", "Give cfg=FILE.yaml, or leave it out."
        raise gather([Problem(where=shown("cfg", given["cfg"]), what=what, do=do)]) from None
    content = read_yaml(path)
    if content.get("cfg") is not None:
        raise ConfigurationError(
            "names another file as cfg", where=path, do="Write all arguments in one file."
        )
    chosen = {
        name: value
        for name, value in content.items()
        if value is not None and not _merely_listed(name, value)
    }
    return {**chosen, **{name: value for name, value in given.items() if name != "cfg"}}


def _merely_listed(name: str, value: object) -> bool:
    entry = ULTRALYTICS.get(name)
    held = entry is not None and entry.kind in (Kind.REFUSED, Kind.FIXED, Kind.IRRELEVANT)
    return held and entry is not None and value == entry.default


def read_yaml(path: str) -> dict[str, object]:
    """Read a YAML file of `key: value` lines; an empty one holds none.

    Args:
        path: The file, UTF-8.

    Raises:
        ConfigurationError: It cannot be read, is not UTF-8 or not YAML, or holds something else.
    """
    import yaml  # late: most runs have no such file

    try:
        content: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}",
            where=path,
            do="Give cfg= the path of a YAML file with one `key: value` a line.",
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigurationError(
            f"is not YAML: {getattr(error, 'problem', None) or error}",
            where=f"{path}:{mark.line + 1}" if mark else path,
            do="Write one `key: value` a line.",
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(
            "holds no `key: value` lines", where=path, do="Write one `key: value` a line."
        )
    return {str(key): value for key, value in cast("dict[object, object]", content).items()}
