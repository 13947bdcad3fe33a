"""Whether a report and pages only can be read: whoever wrote them, nothing in them acts.

It holds for those of any version, also of one that cannot be drawn again to compare them.
"""

from __future__ import annotations

import re

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a report allows the browser: its own style and its own pictures."""

_START = re.compile(
    r'<!doctype html>\n<html lang="[\w-]+">\n<head>\n<meta charset="utf-8">\n'
    r'(<meta name="[^<>"]*" content="[^<>"]*">\n){0,9}'
    rf'<meta http-equiv="Content-Security-Policy" content="{re.escape(POLICY)}">'
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_TAGS = frozenset(
    """
    html head meta title style body header nav main section footer div span p a b i em strong small
    sup sub code pre br hr h1 h2 h3 h4 ul ol li dl dt dd figure figcaption table caption thead tbody
    tfoot tr th td details summary img svg defs g use path line polyline polygon rect circle ellipse
    text tspan image lineargradient stop clippath
    """.split()  # noqa: SIM905 - four lines instead of sixty
)
_ATTRIBUTES = frozenset(
    """
    alt aria-current aria-hidden aria-label class clip-path colspan cx cy d
    data-validation fill fill-opacity focusable font-size height href id lang name offset
    opacity points preserveaspectratio r role rowspan rx ry scope src stroke stroke-width
    text-anchor title transform viewbox width x x1 x2 xmlns y y1 y2
    """.split()  # noqa: SIM905
)
_ATTRIBUTE = re.compile(r'\s([\w:-]++)(?:="([^"<>]*+)")?', re.ASCII)
_TAG = re.compile(r'</?([a-zA-Z]\w*+)((?:\s++[\w:-]++(?:="[^"<>]*+")?)*+)\s*+/?>', re.ASCII)
_HERE = re.compile(r"#[\w-]+|data:image/(jpeg|png);base64,[A-Za-z0-9+/=\s]*", re.ASCII)
_IN_STYLE = re.compile(r"url\s*\(|@import|expression\s*\(|\\|<", re.IGNORECASE)
_IN_PAGE = re.compile(
    r"<[a-z/!?]|\]\(|^ {0,3}\[[^\]\n]{1,99}\]:|://|\b(?:javascript|data|mailto):", re.I | re.M
)


def report_activity(text: str) -> list[str]:
    """What in a report would run, load, or lead elsewhere.

    Each `<` has to begin a tag in the plainest form, so that no browser reads another one there.
    """
    faults: list[str] = []
    start = _START.match(text)
    if start is None:
        faults.append("it does not begin with the policy that forbids scripts and requests")
    if _CONTROL.search(text):
        faults.append("it holds control characters")
    at = 0 if start is None else start.end()
    while (at := text.find("<", at)) >= 0:
        tag = _TAG.match(text, at)
        if tag is None:
            faults.append("it holds a tag that this program does not write")
            break
        at = tag.end()
        name = tag[1].lower()
        if name not in _TAGS:
            faults.append(f"it holds the element {name[:40]!r}")
        if name == "style":
            until = text.find("<", at)
            if _IN_STYLE.search(text, at, len(text) if until < 0 else until):
                faults.append("its style loads something")
        for attribute in _ATTRIBUTE.finditer(tag[2]):
            faults += _attribute_faults(attribute[1].lower(), attribute[2] or "")
    return list(dict.fromkeys(faults))


def page_activity(text: str) -> list[str]:
    """What in a page of Markdown would lead elsewhere, or is not Markdown."""
    faults = ["it holds HTML, or a link"] if _IN_PAGE.search(text) else []
    return [*faults, "it holds control characters"] if _CONTROL.search(text) else faults


def _attribute_faults(name: str, value: str) -> list[str]:
    if name not in _ATTRIBUTES:
        return [f"it holds the attribute {name[:40]!r}"]
    if name in ("href", "src") and not _HERE.fullmatch(value):
        return ["it holds an address outside of itself"]
    return []
