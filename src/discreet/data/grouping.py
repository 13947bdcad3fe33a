"""Which images belong to one patient, person, camera or video segment: by a file or a pattern.

A mistake here is a hole in the guarantee, so nothing is guessed: every training image has one
group, or there is none for any. Keys are private; they are compared, and never leave the machine.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from discreet.data._findings import Findings, examples, printable
from discreet.data._nearest import hint
from discreet.data._reading import UnreadableError, read_text, resolved
from discreet.data.patterns import PatternError, match_all
from discreet.data.records import DetectionDataset, ImageRecord
from discreet.privacy import GroupingName
from discreet.terminal import count

COLUMNS = ("split", "image", "group")
_SPLITS = ("train", "val", "test")
_NO_COMMAS = (";", "\t")  # what spreadsheets of many countries write

Keys = Mapping[str, Mapping[int, str]]
"""Split to number of an image to its group."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    line: int
    split: str
    image: str
    group: str


def grouped(
    dataset: DetectionDataset, *, file: str | Path | None = None, pattern: str | None = None
) -> DetectionDataset:
    """The data set with the groups of a file or of a pattern; as it is where neither is given."""
    if file is not None:
        return group_by_file(dataset, file)
    return dataset if pattern is None else group_by_pattern(dataset, pattern)


def group_by_file(dataset: DetectionDataset, file: str | Path) -> DetectionDataset:
    """The data set with the groups that a CSV file names.

    The file has a header with the columns split, image and group; others are left alone. An image
    is written as its path below the data set's folder, or any end of it that is an image's alone,
    with or without its suffix. White space around a key does not count. Splits other than train
    may be left out.

    Args:
        dataset: The data set, as it was loaded.
        file: The file, UTF-8.

    Raises:
        DatasetError: With all problems found, `file:line: what is wrong`.
    """
    path = Path(file).absolute()
    findings = _findings(dataset, path)
    try:
        rows = list(_rows(path, read_text(path), findings))
    except UnreadableError as error:
        if error.line is None:
            near = hint(path, suffixes=(".csv",)) if not path.exists() else ""
            findings.problems.append(printable(f"groups={file}: {error}{near}"))
        else:
            findings.problem(path, str(error), line=error.line)
        rows = []
    findings.refuse()
    keys = _keys_of(dataset, rows, path, findings)
    _refuse_missing(dataset, keys, path, findings)
    return _with_groups(dataset, keys, findings, how="file")


def group_by_pattern(dataset: DetectionDataset, pattern: str) -> DetectionDataset:
    """The data set with the groups that a regular expression finds in the images' paths.

    Args:
        dataset: The data set, as it was loaded.
        pattern: Searched in each image's path below the data set's folder, with `/` between
            folders; its one group in parentheses is the key. Every training image must match.

    Raises:
        DatasetError: With all problems found.
    """
    findings = _findings(dataset, dataset.yaml)
    splits = _records(dataset)
    texts = [_below(dataset, record) for records in splits.values() for record in records]
    try:
        found = iter(match_all(pattern, texts))
    except PatternError as error:
        findings.problems.append(f"group_regex: {error}")
        findings.refuse()
        raise AssertionError("unreachable") from error
    keys: dict[str, dict[int, str]] = defaultdict(dict)
    for split, records in splits.items():
        for number, record in enumerate(records):
            key = _normal(next(found) or "")
            if key:
                keys[split][number] = key
            elif split == "train":
                findings.problem(record.image, "group_regex finds no key in its path")
    findings.refuse()
    return _with_groups(dataset, keys, findings, how="pattern")


def shared_groups(dataset: DetectionDataset) -> list[str]:
    """Keys of groups that have images in training and in validation."""
    train = {record.group for record in dataset.train}
    return sorted({r.group for r in dataset.val if r.group is not None and r.group in train})


# ---- within ----


def _findings(dataset: DetectionDataset, file: Path) -> Findings:
    return Findings(
        yaml=dataset.yaml,
        root=resolved(file.parent),
        subject="groups",
        notices=list(dataset.notices),
    )


def _rows(path: Path, text: str, findings: Findings) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if missing := [name for name in COLUMNS if header.count(name) != 1]:
            what = f"the header has to name each of {', '.join(COLUMNS)} once; see {missing[0]!r}"
            if others := [mark for mark in _NO_COMMAS if mark in "".join(header)]:
                what = f"columns are separated by {others[0]!r}, and have to be by commas"
            findings.problem(path, what, line=1)
            return
        places = [header.index(name) for name in COLUMNS]
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                what = f"{count(len(cells), 'column')}, and the header has {len(header)}"
                findings.problem(path, what, line=line)
                continue
            split, image, group = (_normal(cells[place]) for place in places)
            split = split.lower()
            if split not in _SPLITS:
                what = f"unknown split {split!r}: expected {', '.join(_SPLITS)}"
                findings.problem(path, what, line=line)
            elif not image or not group:
                findings.problem(path, f"the {'group' if image else 'image'} is empty", line=line)
            else:
                yield _Row(line=line, split=split, image=image, group=group)
    except csv.Error as error:
        findings.problem(path, f"not CSV: {error}", line=reader.line_num)


def _normal(text: str) -> str:
    """What people read as the same is the same: two spellings would break a person apart."""
    return unicodedata.normalize("NFC", text).strip()


def _records(dataset: DetectionDataset) -> dict[str, Sequence[ImageRecord]]:
    every = zip(_SPLITS, (dataset.train, dataset.val, dataset.test), strict=True)
    return {split: records for split, records in every if records}


def _below(dataset: DetectionDataset, record: ImageRecord) -> str:
    for root in (dataset.yaml.parent, resolved(dataset.yaml.parent)):
        if record.image.is_relative_to(root):
            return record.image.relative_to(root).as_posix()
    return record.image.as_posix()


def _keys_of(
    dataset: DetectionDataset, rows: Sequence[_Row], path: Path, findings: Findings
) -> dict[str, dict[int, str]]:
    keys: dict[str, dict[int, str]] = defaultdict(dict)
    lines: dict[tuple[str, int], int] = {}
    named = {split: _names(dataset, records) for split, records in _records(dataset).items()}
    for row in rows:
        if row.split not in named:
            continue  # that split was not asked for
        found = named[row.split].get(_normal(PurePosixPath(row.image).as_posix()), [])
        if len(found) != 1:
            what = (
                f"several {row.split} images are called {row.image!r}: write more of its path"
                if found
                else f"there is no {row.split} image {row.image!r}"
            )
            findings.problem(path, what, line=row.line)
            continue
        first = lines.setdefault((row.split, found[0]), row.line)
        if first != row.line:
            what = f"{row.image!r} has a group already, in line {first}"
            findings.problem(path, what, line=row.line)
        keys[row.split][found[0]] = row.group
    return keys


def _names(dataset: DetectionDataset, records: Sequence[ImageRecord]) -> dict[str, list[int]]:
    """Every end of an image's path, to the images that it may mean.

    Names with their suffix come first: `a.png` is the image of that name, not `a.png.jpg`.
    """
    whole: dict[str, list[int]] = defaultdict(list)
    short: dict[str, list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        below = _normal(_below(dataset, record))
        parts = PurePosixPath(below).parts
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            whole[end].append(number)
            short[end.rpartition(".")[0]].append(number)
        whole[_normal(record.image.as_posix())] = [number]
    return {**short, **whole}


def _refuse_missing(dataset: DetectionDataset, keys: Keys, path: Path, findings: Findings) -> None:
    named = keys.get("train", {})
    missing = [
        findings.shown(record.image)
        for number, record in enumerate(dataset.train)
        if number not in named
    ]
    if missing and not findings.problems:
        what = f"{count(len(missing), 'training image')} without a group: {examples(missing)}"
        findings.problem(path, what)
    findings.refuse()


def _with_groups(
    dataset: DetectionDataset, keys: Keys, findings: Findings, *, how: GroupingName
) -> DetectionDataset:
    splits = {
        split: tuple(
            replace(record, group=keys.get(split, {}).get(number))
            for number, record in enumerate(records)
        )
        for split, records in _records(dataset).items()
    }
    found = replace(dataset, **splits, grouping=how)
    _notice_case(found, findings)
    return replace(found, notices=tuple(findings.notices))


def _notice_case(dataset: DetectionDataset, findings: Findings) -> None:
    spelled: dict[str, set[str]] = defaultdict(set)
    for record in dataset.train:
        if record.group is not None:
            spelled[record.group.casefold()].add(record.group)
    alike = [" and ".join(map(repr, sorted(keys))) for keys in spelled.values() if len(keys) > 1]
    if alike:
        findings.notice(
            f"{count(len(alike), 'group')} differ from another only in capital letters and are "
            f"taken as two: {examples(alike)}"
        )
