"""The generated pages say what the code says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import onnx
import pytest

from edgec.graph import spec
from edgec.graph.channels import RULES
from edgec.passes.table import PASSES, pass_class

DOCS = Path(__file__).resolve().parent.parent / "docs"


def script() -> ModuleType:
    found = importlib.util.spec_from_file_location("pages", DOCS / "pages.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["ops.md", "passes.md"])
def test_a_page_is_not_stale(name: str) -> None:
    made = script().PAGES[name]()
    assert (DOCS / name).read_text(encoding="utf-8") == made, f"docs/{name} is stale: run `make pages`"


def test_a_stale_page_is_noticed(tmp_path: Path) -> None:
    module = script()
    (tmp_path / "ops.md").write_text(module.ops_page().replace("| Conv |", "| Konv |"), encoding="utf-8")
    assert not module._is(tmp_path / "ops.md", module.ops_page())
    assert not module._is(tmp_path / "passes.md", module.passes_page())


def test_every_op_and_every_pass_has_its_line() -> None:
    module = script()
    ops, passes = module.ops_page(), module.passes_page()
    names = {
        one.name
        for one in onnx.defs.get_all_schemas()
        if one.domain == "" and one.since_version <= module.OPSET and not one.deprecated
    }
    for name in names | set(RULES) | set(module.HANDLERS) | set(spec.REFUSED):
        assert f"\n| {name} |" in ops, name
    for name in PASSES:
        assert f"\n## {name}\n" in passes


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_shows_a_program_before_and_after(name: str) -> None:
    text = sys.modules[pass_class(name).__module__].__doc__ or ""
    head, found, program = text.partition("\nA program before and after::\n")
    assert head.strip()
    assert found
    assert "   ->   " in program
