from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discreet.cli.grammar import to_pairs
from discreet.errors import ConfigurationError


def is_flag(name: str) -> bool:
    return name in ("resume", "exist_ok")


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], []),
        (["epsilon=8"], ["--epsilon=8"]),
        (["--epsilon=8"], ["--epsilon=8"]),
        (["--epsilon", "8"], ["--epsilon=8"]),
        (["epsilon", "=", "8"], ["--epsilon=8"]),
        (["epsilon=", "8"], ["--epsilon=8"]),
        (["epsilon", "=8"], ["--epsilon=8"]),
        (
            ["data=a.yaml", "--epsilon", "8", "lr0=1e-3"],
            ["--data=a.yaml", "--epsilon=8", "--lr0=1e-3"],
        ),
        (["--max-grad-norm", "1"], ["--max_grad_norm=1"]),
        (["max-grad-norm=1"], ["--max_grad_norm=1"]),
        (["data=a=b.yaml"], ["--data=a=b.yaml"]),
        (["--data", "a=b.yaml"], ["--data=a=b.yaml"]),
        (["--data=a=b.yaml"], ["--data=a=b.yaml"]),
        (["data=my images/data.yaml"], ["--data=my images/data.yaml"]),
        (["lr0=-1"], ["--lr0=-1"]),
        (["--lr0", "-1"], ["--lr0=-1"]),
        (["freeze=[0,1]"], ["--freeze=[0,1]"]),
        (["freeze=[0,", "1]", "imgsz=160"], ["--freeze=[0,1]", "--imgsz=160"]),
        (["freeze", "=", "[0,", "1,", "2]"], ["--freeze=[0,1,2]"]),
        (["--freeze", "0,1"], ["--freeze=0,1"]),
        (["--freeze", "[0,1]"], ["--freeze=[0,1]"]),
        (["resume"], ["--resume=True"]),
        (["--resume"], ["--resume=True"]),
        (["--resume", "epochs=3"], ["--resume=True", "--epochs=3"]),
        (["--resume", "--epochs", "3"], ["--resume=True", "--epochs=3"]),
        (["--resume", "false"], ["--resume=false"]),
        (["--resume", "runs/private/train"], ["--resume=runs/private/train"]),
        (["resume=runs/private/train"], ["--resume=runs/private/train"]),
        (["--exist-ok", "name=a"], ["--exist_ok=True", "--name=a"]),
        (["name=run=1=", "imgsz=160"], ["--name=run=1=", "--imgsz=160"]),
    ],
)
def test_both_spellings_become_one(words: list[str], options: list[str]) -> None:
    expected = dict(option.removeprefix("--").split("=", 1) for option in options)
    assert to_pairs(words, is_flag=is_flag) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data="], "data=: has no value\n  Write data=VALUE."),
        (["--data"], "--data: has no value\n  Write data=VALUE."),
        (["--data", "--epsilon=8"], "--data: has no value\n  Write data=VALUE."),
        (["data=", "epsilon=8"], "data=: has no value\n  Write data=VALUE."),
        (["data"], "data: has no value\n  Write data=VALUE."),
        (["epsilon=8", "--epsilon", "9"], "--epsilon: given twice\n  Keep one epsilon=."),
        (["max-grad-norm=1", "max_grad_norm=1"], "max_grad_norm=1: given twice"),
        (["a.b=3"], "a.b=3: not an argument"),
        (["=3"], "=3: not an argument"),
        (["data.yaml"], "data.yaml: not an argument"),
        (["freeze=[0,", "1"], "freeze: a list begins with [ and does not end"),
        (["--"], "--: not an argument"),
        (["-x"], "-x: not an argument"),
    ],
)
def test_words_that_are_no_arguments(words: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        to_pairs(words, is_flag=is_flag)
    assert str(caught.value).startswith(message)


def test_all_bad_words_are_in_one_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        to_pairs(["data=", "a.b=1", "epsilon=8", "epsilon=9"], is_flag=is_flag)
    assert str(caught.value).splitlines() == [
        "3 arguments cannot be used:",
        "  data=: has no value. Write data=VALUE.",
        "  a.b=1: not an argument. Write arguments as key=value.",
        "  epsilon=9: given twice. Keep one epsilon=.",
    ]


@given(st.lists(st.text(max_size=8), max_size=6))
def test_no_words_break_the_grammar(words: list[str]) -> None:
    try:
        pairs = to_pairs(words, is_flag=is_flag)
    except ConfigurationError:
        return
    assert all(pairs)


NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(lambda n: not is_flag(n))
VALUES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=9).filter(
    lambda v: not v.startswith(("=", "--", "[")) and v.strip() == v and not v.endswith("=")
)


@given(st.dictionaries(NAMES, VALUES, max_size=5), st.randoms(use_true_random=False))
def test_spelling_does_not_change_meaning(arguments: dict[str, str], random: object) -> None:
    words: list[str] = []
    for name, value in arguments.items():
        spelling = random.randrange(3)  # type: ignore[attr-defined]
        words += [
            [f"{name}={value}"],
            [f"--{name}={value}"],
            [f"--{name}", value],
        ][spelling]
    assert to_pairs(words, is_flag=is_flag) == arguments
