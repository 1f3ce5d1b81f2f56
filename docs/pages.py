"""Write the pages that follow from the code's own tables: docs/ops.md and docs/passes.md (`make pages`).

python docs/pages.py            write both
python docs/pages.py --check    exit code 1 where one is stale
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from edgec.compiler.emit.tflite.ops import HANDLERS
from edgec.graph import spec
from edgec.graph.channels import RULES as CHANNEL_RULES
from edgec.graph.channels import rules_layers
from edgec.passes.base import Pass
from edgec.passes.pipeline_string import option_table
from edgec.passes.quantize.dialects import RULES as INT8_RULES
from edgec.passes.quantize.rules import Kind
from edgec.passes.table import PASSES, pass_class

DOCS = Path(__file__).resolve().parent
OPSET = 26
"""The newest opset of onnx 1.21, the oldest onnx that edgec takes: newer ones must not change the page."""
MADE_BY = "<!-- Made by `make pages` from the code's own tables: change those, not this page. -->\n"
INT8 = {
    Kind.OWN: "a range of its own",
    Kind.SAME: "the codes of its input",
    Kind.JOINT: "one range for all inputs and the output",
    Kind.FIXED: "a fixed range",
    Kind.ACT: "a range of its own, or none behind a quantiser with the same bounds",
}
NUMBERS = {
    "tensor(float)",
    "tensor(float16)",
    "tensor(double)",
    "tensor(int64)",
    "tensor(bool)",
    "tensor(uint8)",
}


def ops_page() -> str:
    """Every op of ONNX: is it pruned through, quantised, emitted to TFLite; by which rule, or why not."""
    schemas = _schemas()
    tables = (CHANNEL_RULES, INT8_RULES, HANDLERS)
    known = sorted(set().union(*tables) - set(spec.REFUSED))
    others = [name for name in schemas if name not in known and name not in spec.REFUSED]
    lines = [
        MADE_BY,
        "# Ops\n",
        f"All {len(set(schemas) | set(known))} ops of ONNX up to opset {OPSET}, as the tables in the code have them. A rule may still refuse a node by its operands or "
        "attributes; then the run, `edgec inspect --groups` and the report say so, by the node's name.\n",
        "- **pruned**: how channels are followed through the op. Where there is no rule, channels in front of the op and behind it stay.",
        "- **int8**: where the range of the output comes from in the table of TFLite's rules, which files for onnxruntime and for TFLite share (activations are "
        "uint8 or int8, by the target). Where there is no rule, the op stays float between a DequantizeLinear and a QuantizeLinear.",
        "- **TFLite**: what the op becomes. Where there is no lowering, `--format tflite` refuses the model with the node's name, or cuts in front of it with "
        "`--split-unsupported`.\n",
        "How to add a rule: [add an op](add-an-op.md).\n",
        "| op | pruned | int8 | TFLite |",
        "|---|---|---|---|",
        *(f"| {name} | {_pruned(name)} | {_int8(name)} | {_tflite(name)} |" for name in known),
        "",
        "## Refused\n",
        "A model that holds one of these is turned away when it is read.\n",
        "| op | why |",
        "|---|---|",
        *(f"| {name} | {why} |" for name, why in sorted(spec.REFUSED.items())),
        "",
        "## No rules\n",
        "These run, and go into ONNX files as they are. Channels around them stay, they stay float, and TFLite files end in front of them.\n",
        "| op | why |",
        "|---|---|",
        *(f"| {name} | {_why(schemas[name])} |" for name in others),
    ]
    return "\n".join(lines) + "\n"


def passes_page() -> str:
    """Every pass with its method, its place, and its options."""
    lines = [
        MADE_BY,
        "# Passes\n",
        "`edgec passes show NAME` prints the same. How to add one: [write a pass](write-a-pass.md).\n",
    ]
    classes = [pass_class(name) for name in PASSES]
    lines += ["| pass | what it does |", "|---|---|"]
    lines += [f"| [`{cls.name}`](#{cls.name}) | {_cell(cls.summary)} |" for cls in classes]
    for cls in classes:
        lines += ["", *_pass_lines(cls)]
    return "\n".join(lines) + "\n"


def _pass_lines(cls: type[Pass]) -> list[str]:
    method = inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "")
    found = [f"## {cls.name}\n", "```text", method, "```\n", *_facts(cls)]
    options = option_table(cls)
    if not options:
        return [*found, "\nNo options."]
    found += ["", "| option | admitted | default | meaning |", "|---|---|---|---|"]
    found += [
        f"| `{name}` | {_cell(kind)} | `{default}` | {_cell(text)} |" for name, kind, default, text in options
    ]
    return found


def _facts(cls: type[Pass]) -> list[str]:
    found = [f"- needs: {', '.join(sorted(need.value for need in cls.needs)) or 'nothing but the model'}"]
    if cls.requires_before:
        found.append(f"- comes after: {', '.join(sorted(cls.requires_before))}")
    if cls.never_after:
        found.append(f"- never after: {', '.join(sorted(cls.never_after))}")
    found.append(f"- changes the function: {'yes' if cls.changes_function else 'no, checked to 1e-5'}")
    return found


def _schemas() -> dict[str, Any]:
    """The newest form, up to `OPSET`, of every op of ONNX's own domain that is not deprecated by then."""
    found: dict[str, Any] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= OPSET:
            old = found.get(schema.name)
            if old is None or old.since_version < schema.since_version:
                found[schema.name] = schema
    return {name: found[name] for name in sorted(found) if not found[name].deprecated}


def _pruned(name: str) -> str:
    rule = CHANNEL_RULES.get(name)
    if rule is None:
        return "no rule"
    what = "a layer" if name in rules_layers.RULES else "through"
    return _with(what, rule)


def _int8(name: str) -> str:
    rule = INT8_RULES.get(name)
    return "float" if rule is None else INT8[rule.kind]


def _tflite(name: str) -> str:
    handler = HANDLERS.get(name)
    return "no" if handler is None else _with("yes", handler)


def _with(word: str, function: Callable[..., Any]) -> str:
    """The word, and the first line of the function's docstring."""
    first = inspect.cleandoc(function.__doc__ or "").split("\n")[0].rstrip(".:,")
    return _cell(f"{word}: {first}" if first else word)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("``", "`")


def _why(schema: Any) -> str:
    types = {kind for output in schema.outputs for kind in output.types}
    if types and not types & NUMBERS:
        return "it makes no tensor of numbers"
    if "tensor(float)" not in types:
        return "it makes no float tensor"
    return "no rule yet"


PAGES: dict[str, Callable[[], str]] = {"ops.md": ops_page, "passes.md": passes_page}


def main() -> int:
    """Write the pages, or say which are stale."""
    stale = [name for name, make in PAGES.items() if not _is(DOCS / name, make())]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"docs/{name} is stale: run `make pages`")
        return int(bool(stale))
    for name in stale:
        (DOCS / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"wrote docs/{name}")
    return 0


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
