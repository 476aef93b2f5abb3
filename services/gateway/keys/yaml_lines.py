"""YAML as plain values that know on which line they stand. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]
"""Where a value stands: names of fields and numbers in lists."""


class YamlError(Exception):
    """A text that is no YAML, or uses more of it than is taken here."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem


@dataclass
class YamlDocument:
    """A document's values, and the node of each."""

    value: Any
    nodes: dict[Path, yaml.Node] = field(default_factory=dict)

    def line_of(self, path: Path) -> int:
        """The line, from 1, of a value or of the nearest one around it that is there."""
        while path and path not in self.nodes:
            path = path[:-1]
        return int(self.nodes[path].start_mark.line) + 1 if path in self.nodes else 1


def read_yaml(text: str) -> YamlDocument:
    """The values of a document.

    Raises:
        YamlError: the text is no YAML, names a field twice, or uses aliases. The message repeats
            nothing of it.
    """
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # Its own text shows the line itself, which may hold what nobody must see.
        problem = error.problem or "no YAML"
        raise YamlError(1 if mark is None else mark.line + 1, problem) from None
    except yaml.YAMLError:
        raise YamlError(1, "holds characters that YAML does not allow") from None
    document = YamlDocument(None)
    if root is not None:
        seen: set[int] = set()
        document.value = _value(root, (), document.nodes, seen)
    return document


def _value(node: yaml.Node, path: Path, nodes: dict[Path, yaml.Node], seen: set[int]) -> Any:
    if id(node) in seen:
        raise YamlError(node.start_mark.line + 1, "aliases (*name) are not taken here")
    seen.add(id(node))
    nodes[path] = node
    if isinstance(node, yaml.MappingNode):
        return {name: _value(child, (*path, name), nodes, seen) for name, child in _fields(node)}
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(child, (*path, number), nodes, seen) for number, child in enumerate(node.value)
        ]
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except (yaml.constructor.ConstructorError, ValueError):
        raise YamlError(node.start_mark.line + 1, "holds no value that can be read") from None


def _fields(node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node]]:
    names: set[str] = set()
    for key, child in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise YamlError(line, "the name of a field must be a word")
        if key.value in names:
            raise YamlError(line, f"the field {key.value!r} stands here twice")
        names.add(key.value)
        yield key.value, child
