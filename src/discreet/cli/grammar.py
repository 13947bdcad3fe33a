"""Two spellings of one argument: Ultralytics' `key=value` and the usual `--key value`.

Both become a name and a text. A bare word is True for an argument that is a truth value
(`resume`, `--exist-ok`), spaces around `=` are allowed, and a list may contain spaces
(`freeze=[0, 1]`), all as Ultralytics reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from discreet.arguments.problems import Problem, gather
from discreet.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z_][\w-]*")
_PAIR = re.compile(r"-{0,2}[A-Za-z_][\w-]*=.*", re.DOTALL)


def to_pairs(words: Sequence[str], *, is_flag: Callable[[str], bool]) -> dict[str, str]:
    """Read the words after the mode as arguments, name to text.

    Args:
        words: What was typed after the mode, in both spellings mixed.
        is_flag: Whether an argument of this name may stand without a value, meaning True.

    Raises:
        ConfigurationError: Words that are no arguments, arguments without a value or given
            twice; all of them in the one error.
    """
    pairs: dict[str, str] = {}
    problems: list[Problem] = []
    for word, key, value in _pairs(_joined(words), is_flag=is_flag):
        name = key.replace("-", "_")
        if not _is_text(word):
            problems.append(
                Problem(where=ascii(word), what="not UTF-8", do="Rename the file or folder.")
            )
        elif not _NAME.fullmatch(key):
            problems.append(
                Problem(where=word, what="not an argument", do="Write arguments as key=value.")
            )
        elif not value:
            problems.append(Problem(where=word, what="has no value", do=f"Write {name}=VALUE."))
        elif name in pairs:
            problems.append(Problem(where=word, what="given twice", do=f"Keep one {name}=."))
        else:
            pairs[name] = value
    if problems:
        raise gather(problems)
    return pairs


def _pairs(
    words: Sequence[str], *, is_flag: Callable[[str], bool]
) -> Iterator[tuple[str, str, str]]:
    """The word as typed, key and value of each argument; an empty value where it has none."""
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        key, equals, value = word.removeprefix("--").partition("=")
        flag = is_flag(key.replace("-", "_"))
        if equals:
            yield word, key, value.strip()
        elif flag and not (word.startswith("--") and rest and not _is_argument(rest[-1])):
            yield word, key, "True"
        elif word.startswith("--") and rest and not rest[-1].startswith("--"):
            yield word, key, rest.pop()
        else:
            yield word, key, ""


def _joined(words: Sequence[str]) -> list[str]:
    """Join what the shell took apart: `epochs = 3`, `freeze=[0, 1]`."""
    joined: list[str] = []
    in_list = False
    for word in words:
        last = joined[-1] if joined else ""
        if in_list or (last and not last.endswith("==") and _continues(last, word)):
            joined[-1] += word
        else:
            joined.append(word)
        value = joined[-1].partition("=")[2]
        in_list = value.startswith("[") and not value.endswith("]")
    if in_list:
        raise ConfigurationError(
            "a list begins with [ and does not end",
            where=joined[-1].partition("=")[0],
            do="Write lists as freeze=[0,1].",
        )
    return joined


def _continues(last: str, word: str) -> bool:
    """Whether `word` is the other side of an `=` that stands apart."""
    if word.startswith("="):
        return "=" not in last
    return last.endswith("=") and last.count("=") == 1 and not ("=" in word or _is_argument(word))


def _is_text(word: str) -> bool:
    try:
        word.encode("utf-8")  # bytes of a file name that are no text arrive as surrogates
    except UnicodeEncodeError:
        return False
    return True


def _is_argument(word: str) -> bool:
    return word.startswith("--") or _PAIR.fullmatch(word) is not None
