"""What must not leave: a last look at a release, before it is published and when it is verified.

Whoever publishes knows the words that must not be in it (paths, file names, the user's name); a
stranger does not, and looks for what such words look like.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Self, cast

from discreet.statement import strict_json
from discreet.statement.archive import read_weights
from discreet.statement.checkpoint import checkpoint_faults
from discreet.statement.files import ENVELOPE, RECORD, RELEASED, REPORT, WEIGHTS
from discreet.statement.passive import page_activity, report_activity
from discreet.statement.pickles import shown
from discreet.statement.pictures import picture_faults

_PATH = re.compile(
    r"(?<![\w.:/<-])/(?:home|root|Users|tmp|var|mnt|data|work|workspace|media|opt|srv|private"
    r"|Volumes|usr|content|kaggle|scratch|dev/shm)/[^\s\"'<>|]+"
    r"|\b[A-Za-z]:[\\/]{1,2}[^\s\"'<>|/\\]+|\\\\[\w.-]+\\|\bfile://"
)
_FILE = re.compile(
    r"[^\s\"'<>|/\\()]\.(?:jpe?g|png|bmp|tiff?|webp|dng|heic|heif|avif|jp2|mpo|pfm|gif|nii|dcm"
    r"|cache|npy|csv)\b",
    re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(
    r"(?:^|_)(?:seed|seeds|loss|losses|tloss|loss_items|train_results|train_metrics|best_fitness"
    r"|grad_norms?|batch_sizes?|save_dir|project|digests?|images?_hash(?:es)?|data_yaml)$"
)
_PUBLIC_KEYS = frozenset({"expected_batch_size", "max_grad_norm"})
_TOKEN = re.compile(r"[\w.-]+")
_SHORTEST_WORD = 3
_SHORTEST_STEM = 6
_SHORTEST_NUMBER = 7
_TEXTS = (".py", ".jinja", ".json", ".css")
_NEVER_RELEASED = ("cli", "demo", "__pycache__")  # folders whose words no release has
_IN_HTML = re.compile(r"data:([\w/+.-]+);base64,([A-Za-z0-9+/=\s]+)")


@dataclass(frozen=True, kw_only=True)
class PrivateWords:
    """Words that must not be in a release.

    Attributes:
        paths: Whole paths, looked for anywhere.
        names: Names of files, folders, people, machines, looked for as whole words; those that
            this program uses itself are left out, as they tell nothing.
    """

    paths: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        *,
        files: Iterable[Path],
        folders: Iterable[Path],
        public: Iterable[str] = (),
        keys: Iterable[str] = (),
    ) -> Self:
        """Words of a run on this machine.

        Args:
            files: The data set's files.
            folders: Folders of the run and of the data set.
            public: What is published anyway, such as class names, settings and the words of the
                architecture. A word of these is not private: a run may be called `adamw`.
            keys: What the groups of images are called.

        Short numbers are left out: a statement may hold them by chance.
        """
        found = {path.name for path in files}
        found |= {
            stem
            for stem in map(_stem, found)
            if len(stem) >= _SHORTEST_STEM and re.search(r"\d", stem) and re.search(r"\D", stem)
        }
        places = {str(folder) for folder in folders} | {str(f.resolve()) for f in folders}
        found |= {Path(place).name for place in places} | {*_of_this_machine(), *keys}
        known = _own_words() | _tokens("\n".join(public))
        return cls(
            paths=frozenset(place for place in places if place.count("/") > 1),
            names=frozenset(
                word.casefold()
                for word in found
                if len(word) >= (_SHORTEST_NUMBER if word.isdecimal() else _SHORTEST_WORD)
                and word.casefold() not in known
            ),
        )

    def found_in(self, texts: Iterable[str]) -> list[str]:
        """Those of the words that are in the texts."""
        text = "\n".join(texts)
        folded, tokens = text.casefold(), _tokens(text)
        spaced = {name for name in self.names if not _TOKEN.fullmatch(name)}
        found = [
            *(path for path in self.paths if path in text),
            *(name for name in self.names & tokens),
            *(name for name in spaced if name in folded),
        ]
        return sorted(found)


def scan_release(folder: Path, *, words: PrivateWords | None = None) -> list[str]:
    """What is in a release that must not be, as `file: what`.

    Args:
        folder: The release.
        words: What its publisher knows must not be in it; a stranger knows none.
    """
    faults: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.name not in RELEASED or path.is_symlink() or not path.is_file():
            faults.append(f"{path.name}: does not belong into a release")
            continue
        found, texts = _read(path)
        found += _look(texts)
        if words is not None:
            found += [f"it holds {word!r}" for word in words.found_in(texts)]
        faults += [f"{path.name}: {what}" for what in dict.fromkeys(found)]
    return faults


def _read(path: Path) -> tuple[list[str], list[str]]:
    """Faults of a file's form, and all text in it."""
    if path.name == WEIGHTS:
        weights = read_weights(path)
        private = [f"it holds {shown(key)}" for key in weights.texts if _is_private_key(key)]
        return [*weights.faults, *checkpoint_faults(weights), *private], weights.texts
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return ["it is not text"], []
    if path.name == RECORD:
        return _json_faults(text), [text]
    if path.name == ENVELOPE:
        return _envelope_texts(text)
    if path.name == REPORT:
        faults, texts = _report_texts(text)
        return [*report_activity(text), *faults], texts
    return page_activity(text), [text]


def _look(texts: Iterable[str]) -> list[str]:
    faults: list[str] = []
    for text in texts:
        if _PATH.search(text):
            faults.append("it holds what looks like a path")
        if _FILE.search(text):
            faults.append("it holds what looks like the name of a file")
    return faults


def _json_faults(text: str) -> list[str]:
    try:
        content = strict_json.loads(text.encode())
    except ValueError:
        return ["it is not JSON"]
    return [f"it holds {key!r}" for key in _keys(content) if _is_private_key(key)]


def _is_private_key(key: str) -> bool:
    return key not in _PUBLIC_KEYS and _PRIVATE_KEY.search(key.lower()) is not None


def _keys(value: Any) -> Iterator[str]:
    left = [value]
    while left:
        match left.pop():
            case dict(inner):
                pairs = cast("dict[str, Any]", inner)
                yield from pairs
                left += pairs.values()
            case list(inner):
                left += cast("list[Any]", inner)
            case _:
                pass


def _envelope_texts(text: str) -> tuple[list[str], list[str]]:
    try:
        payload = base64.b64decode(strict_json.loads(text.encode())["payload"]).decode()
    except (ValueError, KeyError, TypeError, binascii.Error):
        return ["it is not an envelope"], [text]
    return [], [payload]


def _report_texts(text: str) -> tuple[list[str], list[str]]:
    faults: list[str] = []
    for kind, data in _IN_HTML.findall(text):
        if kind.startswith("image/"):
            try:
                faults += picture_faults(base64.b64decode(data))
            except binascii.Error:
                faults.append("it holds a picture that cannot be read")
    return faults, [_IN_HTML.sub("", text)]


def _stem(name: str) -> str:
    return Path(name).stem


def _of_this_machine() -> Iterator[str]:
    host = socket.gethostname()
    yield from (host, host.split(".")[0], Path.home().name)
    try:
        yield getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name
        return


@cache
def _own_words() -> frozenset[str]:
    """Words that a release may have whoever publishes it: those of this program, and of its kind.

    What a record says beside numbers is in the words of the source, and so a folder that is called
    like one of them tells nothing.
    """
    texts = list(_sources(resources.files("discreet")))
    own = {"archive", "data", "model", "names", "train", "val", "test", "images", "labels"}
    own |= {"root", "user", "storage", "cpu"}
    return _tokens("\n".join(texts)) | own


def _sources(folder: Traversable) -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            if entry.name not in _NEVER_RELEASED:
                yield from _sources(entry)
        elif entry.name.endswith(_TEXTS):
            yield entry.read_text(encoding="utf-8")


def _tokens(text: str) -> frozenset[str]:
    """Words of a text in small letters, and the parts of those with points or hyphens."""
    whole = {token.strip(".-") for token in _TOKEN.findall(text.casefold())}
    return frozenset(whole | {part for token in whole for part in re.split(r"[.-]", token)})
