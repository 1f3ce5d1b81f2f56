"""Changes to what JSON and YAML hold (mappings, lists, values) and to how YAML is written."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import yaml
from wild import integer, number, scramble, text

Tree = Any

DEEP = 3000


def places(tree: Tree) -> list[tuple[Any, Any]]:
    """(container, key) of every value in it."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, value in items:
            found.append((one, key))
            waiting.append(value)
    return found


def wild_value(rng: random.Random, like: Any = None) -> Any:
    """Of the same type as ``like`` half the time."""
    if rng.random() < 0.5:
        if isinstance(like, bool):
            return rng.choice((not like, 0, 1, "yes", "no", None))
        if isinstance(like, int):
            return integer(rng)
        if isinstance(like, float):
            return number(rng)
        if isinstance(like, str):
            return text(rng)
    return rng.choice(
        (
            None, True, False, integer(rng), number(rng), text(rng), [], {}, [[]], {"a": {"b": 1}}, [1, 2, 3, 4, 5], "9" * 5000,
            10**400, [text(rng)], {text(rng): 1},
        )
    )  # fmt: skip


def mutate(rng: random.Random, tree: Tree, count: int) -> tuple[Tree, list[str]]:
    """A changed copy."""
    tree = copy.deepcopy(tree)
    done: list[str] = []
    for _ in range(count):
        found = places(tree)
        if not found:
            return wild_value(rng), ["all replaced"]
        where, key = rng.choice(found)
        how = rng.choice(
            ("value", "value", "value", "value", "delete", "key", "extra", "swap", "deep", "many", "root")
        )
        if how == "value":
            where[key] = wild_value(rng, where[key])
        elif how == "delete":
            del where[key]
        elif how == "key" and isinstance(where, dict):
            where[text(rng)] = where.pop(key)
        elif how == "extra":
            where[text(rng)] = 1 if isinstance(where, dict) else None  # type: ignore[index]
        elif how == "swap":
            other, name = rng.choice(found)
            where[key] = copy.deepcopy(other[name])
        elif how == "deep":
            where[key] = deep(rng.choice((50, 400)))
        elif how == "many":
            where[key] = [where[key]] * rng.choice((10, 20_000))
        else:
            return rng.choice((None, [], "x", 3, [tree], {"a": tree})), [*done, "root"]
        done.append(f"{how} {key!r}"[:60])
    return tree, done


def mutate_safely(rng: random.Random, tree: Tree, count: int) -> tuple[Tree, list[str]]:
    """`mutate`, where an impossible change (a key put into a list) leaves the tree as it is."""
    try:
        return mutate(rng, tree, count)
    except (TypeError, KeyError, IndexError):
        return copy.deepcopy(tree), ["none"]


def deep(depth: int) -> Tree:
    """Lists in lists."""
    tree: Tree = 1
    for _ in range(depth):
        tree = [tree]
    return tree


def write_yaml(rng: random.Random, tree: Tree) -> tuple[bytes, list[str]]:
    """The tree as YAML, sometimes written as only an attacker would."""
    try:
        written = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    except RecursionError:
        written = json.dumps(tree)  # which is YAML too
    data = written.encode("utf-8", "surrogatepass")
    if rng.random() < 0.65:
        return data, []
    tricks = {
        "anchors": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(
            b"b%d: &b%d [*%s,*%s,*%s,*%s,*%s,*%s,*%s,*%s]\n"
            % (i, i, *([b"a" if i == 0 else b"b%d" % (i - 1)] * 8))
            for i in range(9)
        )
        + data,
        "itself": b"&me\nself: *me\n" + data,
        "merge": b"<<: {model: 1}\n" + data,
        "deep flow": data + b"\nextra: " + b"[" * DEEP + b"]" * DEEP + b"\n",
        "unclosed": data + b"\nextra: " + b"{a: " * DEEP,
        "tag": data + b"\nextra: !!python/object/apply:os.system ['touch ../outside/executed']\n",
        "tag name": data + b"\nextra: !!python/name:os.system\n",
        "own tag": data + b"\nextra: !nobody {a: 1}\n",
        "binary": data + b"\nextra: !!binary \xff\n",
        "bad date": data + b"\nextra: 2024-13-45\n",
        "time": data + b"\nextra: 9999-12-31 25:61:61 +99:99\n",
        "sexagesimal": data + b"\nextra: 190:20:30:99\n",
        "big": data + b"\nextra: " + b"9" * 10_000 + b"\n",
        "hex": data + b"\nextra: 0x" + b"f" * 6000 + b"\n",
        "octal": data + b"\nextra: 0b2\n",
        "set": data + b"\nextra: !!set {[a]: 1}\n",
        "complex key": data + b"\n? [a, {b: c}]\n: 1\n",
        "omap": data + b"\nextra: !!omap [1, 2]\n",
        "pairs": data + b"\nextra: !!pairs 3\n",
        "null key": data + b"\n~: 1\n1.5: 2\ntrue: 3\n",
        "twice": data + data,
        "documents": data + b"\n---\n" + data,
        "latin": data + b"\n# \xe9\xff\n",
        "utf-16": data.decode("utf-8", "replace").encode("utf-16"),
        "bom": b"\xef\xbb\xbf" + data,
        "nul": data.replace(b"o", b"\0", 1),
        "tabs": data.replace(b"  ", b"\t"),
        "escape": data + b'\nextra: "\\ud800\\udc00 \\x1b[31m"\n',
        "long": data + b"\nextra: " + b"x" * 3_000_000 + b"\n",
        "directive": b"%YAML 9.9\n%TAG ! !\n---\n" + data,
        "empty": b"",
        "comment": b"# nothing\n",
        "scalar": b"42\n",
    }
    name = rng.choice((*tricks, "scramble", "scramble"))
    if name == "scramble":
        changed, how = scramble(rng, data)
        return changed, [f"bytes: {how}"]
    return tricks[name], [f"yaml: {name}"]
