"""Outputs of finished passes, kept by content, so that an interrupted run goes on where it stopped.

The key is a hash of everything that the output depends on: the model's bytes, the pass and its options, the teacher, the data's
fingerprint, the target and its estimates, the seed, the prices, edgec's own source code and that of plug-ins, the packages that
compute, and the processor's arithmetic. A changed input is therefore another key, never a stale hit. Threads are no part of it:
they change no byte. Entries are sealed (`pipeline.sealed`): what this user's edgec did not write here is not read.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from threadpoolctl import threadpool_info

from edgec.compiler.pipeline.sealed import SealedFolder
from edgec.graph.plugins import CHANNEL_RULES, fingerprint, plugins
from edgec.graph.version import __version__
from edgec.passes.base import Context, LatencyModel, Pass
from edgec.passes.options import paths_of
from edgec.passes.pipeline_string import print_pass

_PACKAGES = ("edgec", "edgec.graph", "edgec.passes", "edgec.targets", "edgec.compiler")
_COMPUTE = ("numpy", "scipy", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "Pillow", "torch")
"""Packages whose version may change what a pass returns."""
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class PassCache:
    """One entry per finished pass in ``store``: the length of the figures, the figures as JSON, the model."""

    store: SealedFolder

    def read(self, key: str) -> tuple[ir.Model, dict[str, Any]] | None:
        """The stored model and its figures, or None. A damaged or foreign entry counts as none, and is counted."""
        entry = self.store.read(key)
        if entry is None:
            return None
        end = _LENGTH_BYTES + int.from_bytes(entry[:_LENGTH_BYTES], "big")
        figures = json.loads(entry[_LENGTH_BYTES:end])
        return ir.from_proto(onnx.load_model_from_string(entry[end:])), figures

    def write(self, key: str, model: ir.Model, figures: dict[str, Any]) -> None:
        """Store one finished pass. Raises EdgecError where the disk refuses."""
        text = json.dumps(figures).encode()
        data = ir.to_proto(model).SerializeToString(deterministic=True)
        entry = len(text).to_bytes(_LENGTH_BYTES, "big") + text + data
        self.store.write(key, entry, hint="Free some space and run again with --resume.")

    def unfinished(self, key: str, *, resume: bool) -> Unfinished:
        """Where the pass of ``key`` keeps how far it is."""
        return Unfinished(self.store, f"{key}-unfinished", resume)

    def clear(self) -> None:
        """Forget everything."""
        self.store.clear()


@dataclass(frozen=True)
class Unfinished:
    """The checkpoint of one pass (`passes.base.Checkpoint`): read only where the run resumes."""

    store: SealedFolder
    name: str
    resume: bool

    def read(self) -> bytes | None:
        return self.store.read(self.name) if self.resume else None

    def write(self, data: bytes) -> None:
        """Raises EdgecError where the disk refuses."""
        self.store.write(self.name, data, hint="Free some space and run again with --resume.")

    def forget(self) -> None:
        """The pass is finished."""
        self.store.forget(self.name)


def model_hash(model: ir.Model) -> str:
    """sha256 of the serialised graph."""
    return hashlib.sha256(ir.to_proto(model).SerializeToString(deterministic=True)).hexdigest()


@dataclass(frozen=True)
class KeyMaker:
    """Keys of passes in one run; ``common`` is what they share: a hash of the context and of what computes."""

    common: str
    reference: str = ""
    successor: str = ""
    networks: Mapping[str, str] = field(default_factory=dict)
    """Hashes of what lies in the files that passes name, by path."""

    @classmethod
    def of(cls, context: Context) -> KeyMaker:
        """The part of the keys that no pass changes."""
        parts = {
            "teacher": model_hash(context.teacher),
            "source": None if context.at_source_size is None else model_hash(context.at_source_size),
            "data": context.data.fingerprint if context.data is not None else None,
            "target": context.target.model_dump_json() if context.target is not None else None,
            "estimates": _estimates(context),
            "seed": context.seed,
            "task": context.task,
            "prices": _figures(context.prices),
            "answers": repr(context.answers),
            "code": code_version(),
            "channel rules": {one.name: fingerprint(one) for one in plugins(CHANNEL_RULES)},
            "compute": computing(),
        }
        reference = model_hash(context.reference) if context.reference is not None else ""
        successor = model_hash(context.successor) if context.successor is not None else ""
        networks = {path: model_hash(network) for path, network in context.networks.items()}
        return cls(_hash(parts), reference, successor, networks)

    def behind(self, reference: ir.Model) -> KeyMaker:
        """Keys of passes that may look at ``reference``, the float model before ``quantize``."""
        return replace(self, reference=model_hash(reference))

    def after(self, successor: ir.Model) -> KeyMaker:
        """Keys of passes behind one that put ``successor`` in the source's place."""
        return replace(self, successor=model_hash(successor))

    def key(self, model: ir.Model, one: Pass) -> str:
        """Hash of everything that the output of ``one`` on ``model`` depends on."""
        parts = {
            "common": self.common,
            "reference": self.reference,
            "successor": self.successor,
            "networks": {name: self.networks.get(path) for name, path in paths_of(one).items()},
            "model": model_hash(model),
            "pass": print_pass(one),
            "plug-in": None if one.brought is None else fingerprint(one.brought),
        }
        return _hash(parts)[:32]


def _hash(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _figures(prices: LatencyModel | None) -> dict[str, Any] | None:
    if prices is None:
        return None
    table = prices.table
    return {
        "entry": table.entry.to_dict(),
        "factor": table.factor,
        "source_ms": prices.source_ms,
        "typical": prices.typical,
    }


def _estimates(context: Context) -> dict[str, Any] | None:
    """What passes find out about the target's speed where they were given no prices."""
    from edgec.targets.estimator.coefficients import load_coefficients

    found = load_coefficients(context.target.name) if context.target is not None else None
    return None if found is None else asdict(found)


@lru_cache(maxsize=1)
def code_version() -> str:
    """edgec's version, and sha256 over its own source files: in a checkout the version stays while the code changes."""
    digest = hashlib.sha256(__version__.encode())
    for package in _PACKAGES:
        root = Path(str(import_module(package).__file__)).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def computing() -> dict[str, Any]:
    """What computes: Python, the packages, and the processor's instruction sets, which choose kernels and so the last bits."""
    from edgec.runtime.agent.machine import Machine
    from edgec.runtime.agent.probe import features

    return {
        "python": list(sys.version_info[:2]),
        "packages": {name: _version(name) for name in _COMPUTE},
        "machine": platform.machine(),
        "isa": features(Machine().read("/proc/cpuinfo")),
        "blas": sorted(
            f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}"
            for pool in threadpool_info()
            if pool["user_api"] == "blas"
        ),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
