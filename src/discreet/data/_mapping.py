"""Read a YAML file that holds one mapping, with the line of each key; repeated keys are errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from discreet.data._findings import Findings
from discreet.data._reading import UnreadableError, read_text


@dataclass(frozen=True, kw_only=True)
class YamlMapping:
    """The content of a YAML file.

    Attributes:
        file: Where it was read.
        values: Its top-level keys and values.
        lines: Key to line.
    """

    file: Path
    values: dict[str, Any]
    lines: dict[str, int]

    def problem(self, findings: Findings, key: str, what: str) -> None:
        """Record a problem at a key's line."""
        findings.problem(self.file, what, line=self.lines.get(key))


def _repeated_keys(root: yaml.Node) -> list[yaml.ScalarNode]:
    found: list[yaml.ScalarNode] = []
    seen: set[int] = set()  # an anchor may be reached twice, or contain itself
    nodes: list[yaml.Node] = [root]
    while nodes:
        node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            keys: set[tuple[str, str]] = set()
            for key, value in node.value:
                nodes.append(value)
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if (identity := (key.tag, key.value)) in keys:
                    found.append(key)
                keys.add(identity)
    return sorted(found, key=lambda key: key.start_mark.index)


def _parse(file: Path, text: str, findings: Findings) -> tuple[yaml.Node | None, Any]:
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            return node, None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"not YAML: {error.problem or error.context}"
        at = {} if mark is None else {"line": mark.line + 1, "column": mark.column + 1}
        findings.problem(file, what, **at)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A control character, an impossible date, or nesting without end.
        findings.problem(file, f"not YAML: {' '.join(str(error).split())}")
    return None, None


def read_mapping(file: Path, findings: Findings) -> YamlMapping | None:
    """Read one mapping.

    Args:
        file: The YAML file, UTF-8 with or without a byte-order mark.
        findings: Takes what is wrong with it.

    Returns:
        The mapping, or None if there is none; then `findings` says why.
    """
    try:
        text = read_text(file)
    except UnreadableError as error:
        findings.problem(file, str(error), line=error.line)
        return None
    before = len(findings.problems)
    node, values = _parse(file, text, findings)
    if len(findings.problems) > before:
        return None
    if not isinstance(node, yaml.MappingNode) or not isinstance(values, dict):
        what = "empty" if values is None else "not a mapping of keys to values"
        findings.problem(file, f"{what}; expected at least train, val and names", line=1)
        return None
    for key in _repeated_keys(node):
        what = f"the key {str(key.value)!r} appears twice"
        findings.problem(file, what, line=key.start_mark.line + 1)
    return YamlMapping(
        file=file,
        # Ultralytics takes the text None for null.
        values={str(key): None if value == "None" else value for key, value in values.items()},
        lines={str(key.value): key.start_mark.line + 1 for key, _ in node.value},
    )
