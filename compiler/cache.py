"""Outputs of finished passes, kept by content, so that an interrupted run goes on where it stopped.

The key is a hash of everything that the output depends on: the model's bytes, the pass and its options, the teacher, the
data's fingerprint, the target, the seed, and edgec's own source code. A changed input is therefore another key, never a
stale hit.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from edgec.passes.base import Context, Pass, Prices
from edgec.passes.pipeline_string import print_pass

_PACKAGES = ("edgec", "edgec.graph", "edgec.passes", "edgec.targets", "edgec.compiler")


@dataclass(frozen=True)
class PassCache:
    """One folder per finished pass under ``folder``."""

    folder: Path

    def read(self, key: str) -> tuple[ir.Model, dict[str, Any]] | None:
        """The stored model and its figures, or None. A damaged entry counts as none."""
        entry = self.folder / key
        try:
            figures = json.loads((entry / "step.json").read_text(encoding="utf-8"))
            data = (entry / "model.onnx").read_bytes()
        except (OSError, ValueError):
            return None
        if hashlib.sha256(data).hexdigest() != figures.pop("sha256", None):
            return None
        return ir.from_proto(onnx.load_model_from_string(data)), figures

    def write(self, key: str, model: ir.Model, figures: dict[str, Any]) -> None:
        """Store under a temporary name, then rename: an entry is whole or absent."""
        entry, part = self.folder / key, self.folder / f"{key}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        data = ir.to_proto(model).SerializeToString(deterministic=True)
        (part / "model.onnx").write_bytes(data)
        text = json.dumps({**figures, "sha256": hashlib.sha256(data).hexdigest()})
        (part / "step.json").write_text(text, encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)
        part.rename(entry)

    def clear(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def model_hash(model: ir.Model) -> str:
    """sha256 of the serialised graph."""
    return hashlib.sha256(ir.to_proto(model).SerializeToString(deterministic=True)).hexdigest()


def pass_key(model: ir.Model, one: Pass, context: Context, teacher_hash: str) -> str:
    """Hash of everything that the output of ``one`` on ``model`` depends on."""
    parts = {
        "model": model_hash(model),
        "pass": print_pass(one),
        "teacher": teacher_hash,
        "data": context.data.fingerprint if context.data is not None else None,
        "target": context.target.model_dump_json() if context.target is not None else None,
        "seed": context.seed,
        "prices": _figures(context.prices),
        "code": code_version(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _figures(prices: Prices | None) -> dict[str, Any] | None:
    if prices is None:
        return None
    table = prices.table
    return {"entry": table.entry.to_dict(), "factor": table.factor, "source_ms": prices.source_ms}


@lru_cache(maxsize=1)
def code_version() -> str:
    """sha256 over edgec's own source files."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        root = Path(str(import_module(package).__file__)).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()
