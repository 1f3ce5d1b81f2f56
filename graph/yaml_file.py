"""YAML that people write or send: plain values of a bounded size, or one error with the line.

Only mappings, lists, text, numbers, yes and no, and nothing. Refused are tags, a key that stands twice, a number of a thousand
digits, and anchors that unfold into more than `MOST_VALUES` values. A date is read as text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from edgec.graph.errors import UsageError
from edgec.graph.files import read_text

MOST_BYTES = 1 << 18
"""Of a file; a recipe has some 2 kB."""
MOST_VALUES = 10_000
"""In a file; counted as they are when every anchor is written out: nine lines of anchors can stand for 10^9 values."""
MOST_DEPTH = 40
_LONGEST_NUMBER = 64
_PREFIX = "tag:yaml.org,2002:"
_TAGS = frozenset(_PREFIX + name for name in ("map", "seq", "str", "int", "float", "bool", "null"))
_MERGE = _PREFIX + "merge"
_BREAKS = "\x85\u2028\u2029"
"""Ends of lines to YAML 1.1, besides the usual ones."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without its dates, and for a bounded number of values: it takes a second for 10,000."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own name for it
        first: [pair for pair in pairs if pair[0] != _PREFIX + "timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._composed = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._composed += 1
        self._depth += 1
        if self._composed > MOST_VALUES or self._depth > MOST_DEPTH:
            why = (
                f"more than {MOST_VALUES} values" if self._depth <= MOST_DEPTH else "it is nested too deeply"
            )
            raise yaml.composer.ComposerError(None, None, why, self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, for texts with breaks that it garbles where it writes them out as they are."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    odd = any(sign in text for sign in _BREAKS)
    return dumper.represent_scalar(_PREFIX + "str", text, style='"' if odd else None)


_Dumper.add_representer(str, _text)


def write_yaml(values: object, *, width: int = 120) -> str:
    """``values``, plain ones, as text that `parse_yaml` reads back as they are."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=width, allow_unicode=True)


def read_yaml(path: str | Path, what: str) -> tuple[dict[str, Any], yaml.MappingNode]:
    """The mapping in a file, and the tree that knows the lines. ``what`` it should be: 'a recipe'.

    Raises UsageError for what is no plain file, is too large, is not text, or is refused by `parse_yaml`.
    """
    return parse_yaml(read_text(path, MOST_BYTES, what, UsageError), str(path), what)


def parse_yaml(text: str, where: str, what: str) -> tuple[dict[str, Any], yaml.MappingNode]:
    """The mapping in ``text``, and the tree that knows the lines. Raises UsageError with the line."""
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()
        if not isinstance(tree, yaml.MappingNode):
            raise UsageError(f"not {what}", where=where, why="it must be a mapping of keys to values")
        _weigh(tree, where, {}, set())
        values = loader.construct_document(tree)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = where if mark is None else f"{where}:{mark.line + 1}"
        raise UsageError("not YAML", where=at, why=error.problem or error.context) from error
    except (yaml.YAMLError, ValueError, KeyError) as error:  # the last two: !!int x, !!bool x
        raise UsageError("not YAML", where=where, why=" ".join(str(error).split())) from error
    return values, tree


def _weigh(node: yaml.Node, where: str, known: dict[int, int], above: set[int]) -> int:
    """How many values ``node`` stands for once anchors are written out; refuses what is no plain value on the way."""
    if id(node) in known:
        return known[id(node)]
    at = f"{where}:{node.start_mark.line + 1}"
    if id(node) in above:
        raise UsageError("not YAML", where=at, why="an anchor holds itself")
    above.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node, at)
    elif node.tag not in _TAGS:
        raise UsageError("not YAML", where=at, why=f"the tag {node.tag!r} is not taken")
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, where)
    weight = 1 + sum(_weigh(child, where, known, above) for child in _children(node))
    if weight > MOST_VALUES:
        raise UsageError("not YAML", where=at, why=f"it stands for more than {MOST_VALUES} values")
    above.remove(id(node))
    known[id(node)] = weight
    return weight


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _check_scalar(node: yaml.ScalarNode, at: str) -> None:
    if node.tag not in _TAGS and node.tag != _MERGE:
        raise UsageError("not YAML", where=at, why=f"the tag {node.tag!r} is not taken")
    if node.tag in (_PREFIX + "int", _PREFIX + "float") and len(node.value) > _LONGEST_NUMBER:
        raise UsageError("not YAML", where=at, why=f"a number of {len(node.value)} characters")
    if "\0" in node.value or any("\ud800" <= character <= "\udfff" for character in node.value):
        raise UsageError(
            "not YAML", where=at, why="a value that is no text: it holds NUL or half a character"
        )


def _check_keys(node: yaml.MappingNode, where: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            why = f"{key.value!r} stands in line {lines[key.value]} too"
            raise UsageError("a key twice", where=f"{where}:{line}", why=why)
        lines[key.value] = line
