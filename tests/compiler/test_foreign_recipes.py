"""A recipe is a file from elsewhere: it is read in bounded time and memory, or refused by file and line."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgec.compiler.read.recipe import ModelSource, PassSpec, Recipe, read_recipe
from edgec.graph.errors import UsageError
from edgec.graph.yaml_file import parse_yaml

MODEL = "model: {path: net.onnx}\n"
LAUGHS = "a0: &a0 [1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)

TEXTS = {
    "aliases": (LAUGHS, ":5: not YAML: it stands for more than 10000 values"),
    "merges": (MERGES, ":5: not YAML: it stands for more than 10000 values"),
    "itself": ("a: &a [*a]\n", ":1: not YAML: an anchor holds itself"),
    "deep flow": ("a: " + "[" * 50_000, "nested too deeply"),
    "deep maps": ("a: " + "{a: " * 50_000, "nested too deeply"),
    "deep blocks": ("\n".join(" " * i + "a:" for i in range(600)), "nested too deeply"),
    "many values": ("a: [" + "1," * 100_000 + "]", "more than 10000 values"),
    "many keys": ("\n".join(f"k{i}: 1" for i in range(15_000)), ":5000: not YAML: more than 10000 values"),
    "twice": (MODEL + "seed: 1\nseed: 2\n", ":3: a key twice: 'seed' stands in line 2 too"),
    "twice inside": ("model: {path: a, path: b}\n", ":1: a key twice: 'path'"),
    "object": (MODEL + "seed: !!python/object/apply:os.system [true]\n", ":2: not YAML: the tag"),
    "own tag": (MODEL + "seed: !x 1\n", ":2: not YAML: the tag '!x' is not taken"),
    "set": (MODEL + "seed: !!set {1, 2}\n", ":2: not YAML: the tag"),
    "bytes": (MODEL + "seed: !!binary AAAA\n", ":2: not YAML: the tag"),
    "no int": (MODEL + "seed: !!int x\n", "not YAML: invalid literal"),
    "no bool": (MODEL + "split_unsupported: !!bool x\n", "not YAML: 'x'"),
    "digits": (MODEL + "seed: " + "9" * 10_000 + "\n", ":2: not YAML: a number of 10000 characters"),
    "NUL": (MODEL + 'target: "a\\0b"\n', ":2: not YAML: a value that is no text"),
    "half": (MODEL + 'target: "\\ud800"\n', ":2: not YAML: a value that is no text"),
    "escape": (MODEL + "target: \x1b[2J\n", "not YAML: unacceptable character"),
    "list as key": (MODEL + "? [a]\n: 1\n", "not YAML: found unhashable key"),
    "two": (MODEL + "---\n" + MODEL, ":2: not YAML: but found another document"),
    "empty": ("", "must be a mapping"),
    "number": ("12\n", "must be a mapping"),
    "date": (MODEL + "seed: 2024-13-45\n", ":2: seed: "),
    "markup": (MODEL + '"\\e[31m[red]": 1\n', r":2: unknown key '\x1b[31m[red]'"),
    "number as key": (MODEL + "1: 2\n", "1"),
    "alias of nothing": (MODEL + "seed: *x\n", ":2: not YAML: found undefined alias"),
    "tabs": (MODEL + "data:\n\tpath: x\n", ":3: not YAML"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_hostile_text_is_refused_by_line(kind: str, tmp_path: Path) -> None:
    text, says = TEXTS[kind]
    (tmp_path / "r.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(UsageError) as caught:
        read_recipe(tmp_path / "r.yaml")
    assert time.process_time() - start < 15
    assert "r.yaml" in str(caught.value)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 5000
    assert "\x1b" not in str(caught.value)


FILES = {
    "fifo": (os.mkfifo, "a FIFO"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "folder": (Path.mkdir, "it is a folder"),
    "missing": (lambda path: None, "no such file"),
    "loop": (lambda path: path.symlink_to(path.name), "symbolic link"),
    "large": (lambda path: path.write_bytes(b"#" * 300_000), "300 kB; 262 kB are allowed"),
    "sparse": (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 40), "1.1 TB"),
    "latin-1": (lambda path: path.write_bytes(b"model:\n  path: \xe9.onnx\n"), "r.yaml:2: a recipe is not UTF-8"),
    "binary": (lambda path: path.write_bytes(bytes(range(128))), "NUL"),
    "model": (lambda path: path.write_bytes(b"\x08\x07\x12\x04edgec\x90\xff"), "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_recipe_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    make, says = FILES[kind]
    make(tmp_path / "r.yaml")
    with pytest.raises(UsageError) as caught:
        read_recipe(tmp_path / "r.yaml")
    assert says in str(caught.value)
    assert caught.value.where is not None
    assert "r.yaml" in caught.value.where


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_recipes_of_other_editors_are_read(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes("model: {path: größe.onnx}\r\nseed: 3\r\n".encode(encoding))
    recipe = read_recipe(tmp_path / "r.yaml")
    assert recipe.seed == 3
    assert Path(recipe.model.path) == tmp_path / "größe.onnx"


def test_anchors_are_taken_where_they_are_few(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(MODEL + "data: {path: &d calib}\neval: {path: *d}\n")
    recipe = read_recipe(tmp_path / "r.yaml")
    assert recipe.data is not None
    assert recipe.eval is not None
    assert recipe.data.path == recipe.eval.path


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)


@settings(deadline=None, max_examples=60)
@example("\x85", "a\x85", "\x85a b")
@example("\u2028a", "\u2029", "a\u2028 \u2029b")
@given(NAMES, NAMES, NAMES)
def test_any_name_survives_the_recipe(path: str, target: str, node: str) -> None:
    passes = (PassSpec(name="quantize", options={"exclude": node}),)
    recipe = Recipe(model=ModelSource(path=path), target=target, passes=passes)
    values, _ = parse_yaml(recipe.to_yaml(), "r.yaml", "a recipe")
    assert Recipe.model_validate(values) == recipe


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda t: t.encode("utf-8", "ignore")))
def test_any_bytes_are_a_recipe_or_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    for head in (b"", MODEL.encode()):
        file.write_bytes(head + data)
        try:
            recipe = read_recipe(file)
        except UsageError as error:
            message = str(error)
        else:
            message = recipe.model.path
        assert message


LEAVES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("random")
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(Recipe.model_fields)), st.sampled_from(["path", "samples", "mean", "of"]), TREES
)
def test_any_value_of_any_field_is_taken_or_named(
    tmp_path_factory: pytest.TempPathFactory, field: str, inner: str, value: Any
) -> None:
    file = tmp_path_factory.getbasetemp() / "fields.yaml"
    for tree in (value, {inner: value}):
        file.write_text(yaml.safe_dump({"model": {"path": "a.onnx"}, field: tree}))
        try:
            recipe = read_recipe(file)
        except UsageError as error:
            assert "fields.yaml" in str(error.where)  # noqa: PT017 - both ends are right
        else:
            assert recipe.to_yaml()
