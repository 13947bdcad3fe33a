"""Groups by file and by pattern: nothing guessed, every mistake told with its place."""

from __future__ import annotations

import time

import pytest

from discreet.data import DetectionDataset, group_by_file, group_by_pattern, shared_groups
from discreet.data.patterns import PatternError, match_all
from discreet.errors import DatasetError

from .conftest import TinyDataset

GOOD = "split,image,group\ntrain,train0,p1\ntrain,train1,p1\ntrain,train2,p2\n"


def keys(dataset: DetectionDataset) -> list[str | None]:
    return [record.group for record in dataset.train]


def grouped(tiny: TinyDataset, content: str | bytes) -> DetectionDataset:
    return group_by_file(tiny.load(), tiny.write("../groups.csv", content))


def problems(tiny: TinyDataset, content: str | bytes) -> str:
    with pytest.raises(DatasetError) as error:
        grouped(tiny, content)
    return "\n".join(error.value.problems)


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        "﻿" + GOOD,
        GOOD.replace("\n", "\r\n"),
        "group,age,image,split\np1,40,train0.jpg,train\np1,40,images/train/train1.jpg,train\n"
        'p2,41,"train/train2",train\n',
        "Split, Image , GROUP\ntrain,train0, p1\n\ntrain,./train1,p1 \ntrain,train2,p2\n,,\n",
        GOOD + "val,val0,p9\ntest,whatever,p1\n",
        GOOD.replace("train,", "Train,"),
    ],
)
def test_a_file_is_read_however_it_is_written(tiny: TinyDataset, content: str):
    dataset = grouped(tiny, content)
    assert keys(dataset) == ["p1", "p1", "p2"]
    assert dataset.grouping == "file"
    assert len(dataset.units()) == 2


def test_spellings_of_one_key_are_one_person(tiny: TinyDataset):
    composed, apart = "Jos\u00e9", "Jose\u0301"
    content = GOOD.replace("train0,p1", f"train0,{composed}").replace(
        "train1,p1", f"train1,{apart}"
    )
    assert keys(grouped(tiny, content)) == [composed, composed, "p2"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (GOOD.replace("train,train2,p2\n", ""), "groups.csv: 1 training image without a group"),
        (GOOD + "train,train9,p3\n", "groups.csv:5: there is no train image 'train9'"),
        (GOOD + "val,val9,p3\n", "groups.csv:5: there is no val image 'val9'"),
        (
            GOOD + "train,train0.jpg,p1\n",
            "groups.csv:5: 'train0.jpg' has a group already, in line 2",
        ),
        (GOOD.replace("train2,p2", "train2,  "), "groups.csv:4: the group is empty"),
        (GOOD.replace("train2,p2", ",p2"), "groups.csv:4: the image is empty"),
        (GOOD.replace("train,train1", "trian,train1"), "groups.csv:3: unknown split 'trian'"),
        (GOOD.replace("train1,p1", "train1"), "groups.csv:3: 2 columns, and the header has 3"),
        (GOOD.replace("split,", "part,"), "groups.csv:1: the header has to name each of"),
        (GOOD.replace("group\n", "group,group\n"), "groups.csv:1: the header has to name each of"),
        ("", "groups.csv:1: the header has to name each of"),
        (GOOD.replace(",", ";"), "groups.csv:1: columns are separated by ';'"),
        (GOOD.encode() + b"val,\xff,p\n", "groups.csv:5: not UTF-8 text"),
        (GOOD + 'train,"train0,p1\n', "groups.csv:5: not CSV"),
    ],
)
def test_every_mistake_is_told_with_its_line(tiny: TinyDataset, content: str | bytes, what: str):
    assert what in problems(tiny, content)


def test_a_name_of_two_images_is_refused(tiny: TinyDataset):
    tiny.add("images/train/more/train0.jpg", "0 0.5 0.5 0.4 0.4\n")
    content = GOOD + "train,more/train0,p3\n"
    assert "several train images are called 'train0'" in problems(tiny, content)
    content = content.replace("train,train0,", "train,images/train/train0,")
    assert keys(grouped(tiny, content)) == ["p3", "p1", "p1", "p2"]


def test_a_missing_file_is_told_with_its_neighbour(tiny: TinyDataset):
    tiny.write("../groups.csv", GOOD)
    with pytest.raises(DatasetError, match=r"nearest that exists is .*groups\.csv"):
        group_by_file(tiny.load(), tiny.root.parent / "grops.csv")


def test_a_folder_is_told_as_it_was_given(tiny: TinyDataset):
    folder = tiny.load().yaml.parent
    with pytest.raises(DatasetError) as caught:
        group_by_file(tiny.load(), folder)
    assert caught.value.problems == (f"groups={folder}: not a plain file",)


def test_keys_that_differ_in_case_only_are_asked_about(tiny: TinyDataset):
    dataset = grouped(tiny, GOOD.replace("train1,p1", "train1,P1"))
    assert keys(dataset) == ["p1", "P1", "p2"]
    assert any("'P1' and 'p1'" in notice for notice in dataset.notices)


def test_groups_in_both_splits_are_found(tiny: TinyDataset):
    assert shared_groups(grouped(tiny, GOOD + "val,val0,p2\nval,val1,p3\n")) == ["p2"]
    assert shared_groups(grouped(tiny, GOOD)) == []


def test_a_pattern_finds_keys_in_paths(tiny: TinyDataset):
    dataset = group_by_pattern(tiny.load(), r"images/(\w+)/")
    assert dataset.grouping == "pattern"
    assert keys(dataset) == ["train"] * 3 and len(dataset.units()) == 1
    assert [record.group for record in dataset.val] == ["val"] * 2


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        (r"train([01])\.", "images/train/train2.jpg: group_regex finds no key in its path"),
        (r"train(\s*)\d", "images/train/train0.jpg: group_regex finds no key"),
        (r"train(\d", "group_regex: not a regular expression"),
        (r"train\d", "group_regex: expected one group in parentheses, the key, and found 0"),
        (r"(t)r(a)", "found 2"),
    ],
)
def test_a_pattern_that_leaves_images_out_is_refused(tiny: TinyDataset, pattern: str, what: str):
    with pytest.raises(DatasetError) as error:
        group_by_pattern(tiny.load(), pattern)
    assert what in "\n".join(error.value.problems)


def test_validation_images_need_not_match(tiny: TinyDataset):
    dataset = group_by_pattern(tiny.load(), r"images/train/train(\d)")
    assert keys(dataset) == ["0", "1", "2"] and dataset.val[0].group is None


def test_a_pattern_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("discreet.data.patterns.SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(PatternError, match="takes too long"):
        match_all(r"((?:a+)+)$", ["a" * 60 + "!"])
    assert time.monotonic() - began < 20


def test_names_may_hold_any_bytes():
    assert match_all("^(.)", ["\udcff", "\u00e9", ""]) == ["\udcff", "\u00e9", None]
