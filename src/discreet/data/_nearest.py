"""The existing path nearest to one that does not exist, for error messages."""

from __future__ import annotations

import difflib
from pathlib import Path

from discreet.data._reading import exists, names_in

MAX_NAMES = 10_000  # a folder of a million images is not worth comparing


def nearest_existing(path: Path, *, suffixes: tuple[str, ...] = ()) -> Path | None:
    """The existing file or folder whose path is most like `path`.

    Follows `path` down to its first missing part, replaces that part by the most similar name
    there, and then keeps as much of the rest as exists.

    Args:
        path: An absolute path that does not exist.
        suffixes: If given, names with one of these suffixes are preferred for the last part.

    Returns:
        A similar path, or else the deepest existing folder above; None if that is the file
        system's root.
    """
    parts = path.parts
    folder = Path(parts[0])
    for index, part in enumerate(parts[1:], start=1):
        if exists(folder / part):
            folder = folder / part
            continue
        names = names_in(folder, at_most=MAX_NAMES)
        last = index == len(parts) - 1
        if last and suffixes:
            names = [name for name in names if name.endswith(suffixes)] or names
        lowered = {name.lower(): name for name in names}
        similar = difflib.get_close_matches(part.lower(), lowered, n=1, cutoff=0.5)
        if not similar:
            break
        found = folder / lowered[similar[0]]
        for rest in parts[index + 1 :]:
            if not exists(found / rest):
                break
            found = found / rest
        return found
    return folder if folder != Path(parts[0]) else None


def hint(path: Path, *, suffixes: tuple[str, ...] = ()) -> str:
    """A half-sentence that names the nearest existing path, empty if there is none near."""
    found = nearest_existing(path, suffixes=suffixes)
    return "" if found is None else f"; the nearest that exists is {found}"
