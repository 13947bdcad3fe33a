from __future__ import annotations

from pathlib import Path

import pytest

from discreet.data import load_dataset
from discreet.data.description import is_remote
from discreet.errors import DatasetError


def refusal(data: str | Path) -> str:
    with pytest.raises(DatasetError) as error:
        load_dataset(data)
    return str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/set.yaml",
        "http:/example.org/set.zip",
        "ul://a/datasets/b",
        "s3://a/b.yaml",
    ],
)
def test_addresses_are_refused(address):
    assert "nothing is fetched from the network" in refusal(address)
    assert "nothing is fetched from the network" in refusal(Path(address))


@pytest.mark.parametrize(
    "path", ["a/b.yaml", "C:\\data\\set.yaml", "C:/data/set.yaml", "/a:/b", "a"]
)
def test_paths_are_not_addresses(path):
    assert not is_remote(path)


def test_missing_file_names_where_it_looked_and_the_nearest(tiny):
    text = refusal(tiny.root / "dta.yaml")
    assert f"looked for {tiny.root}/dta.yaml" in text
    assert f"the nearest that exists is {tiny.root}/data.yaml" in text


def test_missing_folder_on_the_way_names_the_nearest(tiny):
    text = refusal(tiny.root.parent / "tinny" / "data.yaml")
    assert f"the nearest that exists is {tiny.root}/data.yaml" in text


@pytest.mark.parametrize("name", ["coco8.yaml", "coco8"])
def test_names_known_to_ultralytics_are_not_looked_up(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text = refusal(name)
    assert text.startswith(f"{name}: no such data set file")
    assert "are not looked up in its package" in text


def test_folder_with_one_yaml_file_is_enough(tiny):
    assert load_dataset(tiny.root).yaml == tiny.yaml
    tiny.write("tiny.yml", tiny.yaml.read_text())
    assert load_dataset(tiny.root).yaml == tiny.root / "tiny.yml"
    tiny.write("tiny.yaml", tiny.yaml.read_text())
    assert "data.yaml, tiny.yaml, tiny.yml" in refusal(tiny.root)
    assert "a folder without a YAML file" in refusal(tiny.root / "images")


@pytest.mark.parametrize(
    ("name", "what"),
    [("set.zip", "an archive"), ("set.ndjson", "an archive"), ("set.txt", "not a YAML")],
)
def test_other_files_are_refused(tiny, name, what):
    assert what in refusal(tiny.write(name, b"PK"))


def test_relative_path_of_the_data_set(tiny, monkeypatch):
    monkeypatch.chdir(tiny.root.parent)
    assert load_dataset("tiny/data.yaml").train[0].image == tiny.root / "images/train/train0.jpg"


def test_not_yaml_gives_line_and_column(tiny):
    tiny.write("data.yaml", "train: images/train\nval: [images/val\nnames: [a]\n")
    assert tiny.problem().startswith("data.yaml:3:6: not YAML: ")


@pytest.mark.parametrize(
    ("content", "line"),
    [("", "1"), ("# nothing\n", "1"), ("- train\n- val\n", "1"), ("text", "1")],
)
def test_not_a_mapping(tiny, content, line):
    tiny.write("data.yaml", content)
    problem = tiny.problem()
    assert problem.startswith(f"data.yaml:{line}: ") and "expected at least train, val" in problem


@pytest.mark.parametrize(
    "content",
    [
        b"train: a\nval: \xff\xfe\n",
        b"train: \x07\nval: b\n",
        b"train: 2024-13-45\nval: b\n",
        b"train: !!python/object/apply:os.system ['true']\n",
        b"train: a\n---\ntrain: b\n",
        b"? [a]\n: b\n",
        b"[" * 5000,
    ],
)
def test_hostile_yaml_is_one_problem(tiny, content):
    tiny.write("data.yaml", content)
    assert tiny.problem().startswith("data.yaml")


def test_not_utf8_gives_the_line(tiny):
    tiny.write("data.yaml", b"train: images/train\nval: \xff\n")
    assert tiny.problem() == "data.yaml:2: not UTF-8 text"


def test_byte_order_mark_and_the_text_none(tiny):
    tiny.write(
        "data.yaml", b"\xef\xbb\xbf" + tiny.yaml.read_bytes() + b"test: None\ndownload: None\n"
    )
    assert tiny.load().notices == ()
    assert "data.yaml:5: the key 'test' is missing or empty" in tiny.problem(
        splits=("train", "test")
    )


def test_repeated_keys_are_refused_at_any_depth(tiny):
    tiny.write(
        "data.yaml",
        "train: images/train\nval: images/val\nnames:\n  0: cell\n  0: dot\ntrain: images/val\n",
    )
    problems = tiny.problems()
    assert "data.yaml:5: the key '0' appears twice" in problems
    assert "data.yaml:6: the key 'train' appears twice" in problems


def test_anchors_are_not_repeated_keys(tiny):
    tiny.write("data.yaml", tiny.yaml.read_text() + "a: &x {k: 1}\nb: *x\nc: &y [*y]\n")
    assert tiny.load().n == 3


@pytest.mark.parametrize("key", ["train", "val", "names"])
def test_missing_keys_with_the_one_that_was_meant(tiny, key):
    lines = [line for line in tiny.yaml.read_text().splitlines() if not line.startswith("nc:")]
    text = "\n".join(lines)
    assert f"{key}:" in text
    tiny.write("data.yaml", text.replace(f"{key}:", f"{key}x:"))
    assert tiny.problem() == (
        f"data.yaml: the key '{key}' is missing or empty; did you mean '{key}x'?"
    )


@pytest.mark.parametrize("value", ["", "null", "''", "[]", "[images/train, '']"])
def test_empty_split(tiny, value):
    tiny.write("data.yaml", tiny.yaml.read_text().replace("train: images/train", f"train: {value}"))
    assert tiny.problem().startswith("data.yaml:1: the key 'train' is missing or empty")


@pytest.mark.parametrize("value", ["3", "{a: b}", "[images/val, 3]", '"a\\0b"'])
def test_split_that_is_no_path(tiny, value):
    tiny.write("data.yaml", tiny.yaml.read_text().replace("images/val", value))
    assert tiny.problem().startswith("data.yaml:2: expected val to be a path")


def test_missing_folder_names_the_path_and_the_nearest(tiny):
    tiny.write("data.yaml", tiny.yaml.read_text().replace("images/val", "images/valid"))
    assert tiny.problem() == (
        f"data.yaml:2: no such folder or list: looked for {tiny.root}/images/valid;"
        f" the nearest that exists is {tiny.root}/images/val"
    )


def test_both_missing_folders_are_reported(tiny):
    tiny.write("data.yaml", tiny.yaml.read_text().replace("images", "imgs"))
    first, second = tiny.problems()
    assert f"looked for {tiny.root}/imgs/train" in first
    assert f"nearest that exists is {tiny.root}/images/train" in first
    assert f"looked for {tiny.root}/imgs/val" in second


def test_remote_splits_are_refused(tiny):
    tiny.write("data.yaml", "train: https://example.org/a.zip\nval: images/val\nnames: [a, b]\n")
    assert "data.yaml:1: https://example.org/a.zip is an address" in tiny.problem()


def test_parent_folder_that_is_not_there(tiny):
    tiny.write("data.yaml", tiny.yaml.read_text().replace(" images/train", " ../images/train"))
    dataset = tiny.load()
    assert dataset.n == 3
    assert any("../images/train is read as images/train" in notice for notice in dataset.notices)


def test_validation_key(tiny):
    tiny.write("data.yaml", tiny.yaml.read_text().replace("val:", "validation:"))
    dataset = tiny.load()
    assert len(dataset.val) == 2 and any("'validation'" in notice for notice in dataset.notices)


def test_several_folders(tiny):
    tiny.add("more/images/x.jpg", "0 0.5 0.5 0.1 0.1")
    tiny.write(
        "data.yaml", tiny.yaml.read_text().replace("images/train", "[images/train, more/images]")
    )
    dataset = tiny.load()
    assert [record.image.name for record in dataset.train] == [
        "train0.jpg",
        "train1.jpg",
        "train2.jpg",
        "x.jpg",
    ]
    assert dataset.train[-1].label == tiny.root / "more/labels/x.txt"


def test_path_key_is_relative_to_the_file_not_to_the_current_folder(tiny, monkeypatch):
    monkeypatch.chdir(tiny.root.parent)
    tiny.write("conf/set.yaml", "path: ..\n" + tiny.yaml.read_text())
    dataset = load_dataset(tiny.root / "conf/set.yaml")
    assert dataset.n == 3
    assert any("Ultralytics would take it from the current folder" in n for n in dataset.notices)


def test_missing_path_key_folder(tiny, monkeypatch):
    monkeypatch.chdir(tiny.root.parent)
    tiny.write("data.yaml", "path: tiny\n" + tiny.yaml.read_text())
    problem = tiny.problem()
    assert problem.startswith(f"data.yaml:1: no such folder: looked for {tiny.root}/tiny;")
    assert f"not to the current folder ({tiny.root})" in problem
    monkeypatch.chdir(tiny.root)
    tiny.write("data.yaml", tiny.yaml.read_text().replace("path: tiny", f"path: {tiny.root}x"))
    assert f"the nearest that exists is {tiny.root}" in tiny.problem()


@pytest.mark.parametrize("value", ["3", "[a]", "https://example.org/"])
def test_path_key_that_is_no_folder(tiny, value):
    tiny.write("data.yaml", f"path: {value}\n" + tiny.yaml.read_text())
    assert tiny.problem().startswith("data.yaml:1: ")


def test_download_is_not_run(tiny):
    tiny.write(
        "data.yaml",
        tiny.yaml.read_text() + f"download: |\n  open({str(tiny.root / 'ran')!r}, 'w').close()\n",
    )
    (notice,) = tiny.load().notices
    assert "'download' is ignored" in notice
    assert not (tiny.root / "ran").exists()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("nc: 2\nnames: [a, b]", ("a", "b")),
        ("names: {1: b, 0: a}", ("a", "b")),
        ("names: {'0': a, '1': b}", ("a", "b")),
        ("nc: '2'\nnames: [a, 7]", ("a", "7")),
        ("nc: 2.0", ("class_0", "class_1")),
    ],
)
def test_names(tiny, names, expected):
    tiny.write("data.yaml", f"train: images/train\nval: images/val\n{names}\n")
    assert tiny.load().names == expected


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ("nc: 3\nnames: [a, b]", "4: names has 2 entries and nc is 3: they must match"),
        ("names: {0: a, 2: b}", "3: the keys of names must be 0 to 1, each once; got 0, 2"),
        ("names: {1: a, 2: b}", "3: the keys of names must be 0 to 1, each once; got 1, 2"),
        ("names: {0: a, '0': b}", "3: the keys of names must be 0 to 1, each once; got 0, 0"),
        ("names: {a: 0, b: 1}", "3: the keys of names must be 0 to 1, each once; got a, b"),
        ("names: []", "3: expected a list, or a mapping"),
        ("names: cell", "3: expected a list, or a mapping"),
        ("nc: two", "3: expected nc to be a whole number >= 1, got 'two'"),
        ("nc: 1.9\nnames: [a, b]", "3: expected nc to be a whole number >= 1, got 1.9"),
        ("nc:\nnames: [a, b]", "3: expected nc to be a whole number >= 1, got None"),
        ("nc: 0", "3: expected nc to be a whole number >= 1, got 0"),
        ("nc: true", "3: expected nc to be a whole number >= 1, got True"),
        ("nc: .inf", "3: expected nc to be a whole number >= 1, got inf"),
        ("names: [a, b]\nchannels: 1", "4: only channels: 3 is supported"),
        ("names: [a, b]\nkpt_shape: [17]", "4: expected kpt_shape to be"),
    ],
)
def test_wrong_names(tiny, names, what):
    tiny.write("data.yaml", f"train: images/train\nval: images/val\n{names}\n")
    assert tiny.problem().startswith(f"data.yaml:{what}")


def test_names_that_are_odd_but_usable_are_notices(tiny):
    tiny.write("data.yaml", "train: images/train\nval: images/val\nnames: [no, cell, cell]\n")
    dataset = tiny.load()
    assert dataset.names == ("False", "cell", "cell")
    assert any("does not read as text: False" in notice for notice in dataset.notices)
    assert any("more than once: cell" in notice for notice in dataset.notices)


def test_unreadable_yaml(tiny, unreadable):
    unreadable(tiny.yaml)
    assert tiny.problem() == "data.yaml: cannot be read: Permission denied"
