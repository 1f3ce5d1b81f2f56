"""Run a graph, or any part of it, in onnxruntime, and stream a data set through it in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from edgec.graph.batch import SampleBySample, is_free
from edgec.graph.errors import ModelError, UnsupportedError

if TYPE_CHECKING:
    import onnxruntime

    from edgec.graph.data import Dataset

Array = np.ndarray[Any, np.dtype[Any]]

# The official wheels send telemetry from 1.29 on unless this stands before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@lru_cache(maxsize=1)
def has_exact_int8() -> bool:
    """False on x86 processors without VNNI, whose 16-bit sums saturate for uint8 x int8 products."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return "vnni" in text or "flags" not in text


def session(
    model: onnx.ModelProto | bytes, *, threads: int = 1, fused: bool = True
) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU; without ``fused`` every node runs as it is written. Raises UnsupportedError with the
    runtime's reason."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    if not fused:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not has_exact_int8():
        options.add_session_config_entry("session.x64quantprecision", "1")
    data = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common base of their own
        if "bad_alloc" in str(error):
            raise ModelError("the model needs more memory than there is") from error
        raise UnsupportedError("onnxruntime cannot load the model", why=_reason(error)) from error


class Executor:
    """A graph, or the part of it between ``inputs`` and ``outputs``, ready to run.

    Any values may be named: ``inputs`` defaults to the graph's inputs, ``outputs`` to its outputs. ``weights`` are constants
    that come with every run instead: one session then serves other weights too. Where the graph's batch is fixed, samples are
    run one by one and held as `batch.SampleBySample` says.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        weights: Sequence[str] = (),
        threads: int = 1,
    ) -> None:
        self.weights = frozenset(weights)
        self.inputs: tuple[str, ...] = (
            tuple(inputs) if inputs is not None else tuple(v.name or "" for v in model.graph.inputs)
        )
        wanted = tuple(outputs) if outputs is not None else tuple(v.name or "" for v in model.graph.outputs)
        self.outputs: tuple[str, ...] = tuple(dict.fromkeys(wanted))
        self._computed = [name for name in self.outputs if name not in self.inputs]
        self._session = None
        self.reads: tuple[str, ...] = tuple(name for name in self.outputs if name in self.inputs)
        """Those of ``inputs`` that `run` needs, besides ``weights``."""
        if not self._computed:
            return
        proto = extract(model, (*self.inputs, *weights), self._computed)
        self._session = session(proto, threads=threads)
        self._shapes = {value.name: value.shape for value in self._session.get_inputs()}
        read = (name for name in self._shapes if name not in self.weights)
        self.reads = tuple(dict.fromkeys((*self.reads, *read)))
        self._singly = None if is_free(model) else SampleBySample.of(model)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Values of ``outputs`` for a batch. Raises ModelError where the runtime fails."""
        results = {name: feeds[name] for name in self.outputs if name in self.inputs}
        if self._session is not None:
            needed = {name: feeds[name] for name in self._shapes}
            computed = self._run(needed) if self._singly is None else self._run_singly(self._singly, needed)
            results.update(zip(self._computed, computed, strict=True))
        return results

    def _run_singly(self, singly: SampleBySample, feeds: dict[str, Array]) -> list[Array]:
        whole = {name: array for name, array in feeds.items() if name in self.weights}
        cut = {name: array for name, array in feeds.items() if name not in self.weights}
        count = singly.count(cut, self._shapes)
        rows = []
        for index in range(count):
            ranks = ((name, array, len(self._shapes[name])) for name, array in cut.items())
            one = {name: singly.one(array, index, count, rank) for name, array, rank in ranks}
            rows.append(self._run({**whole, **one}))
        return [singly.together(*pair) for pair in zip(self._computed, zip(*rows, strict=True), strict=True)]

    def _run(self, feeds: dict[str, Array]) -> list[Array]:
        if self._session is None:
            return []
        try:
            return list(self._session.run(self._computed, feeds))
        except Exception as error:  # the runtime's exceptions have no common base of their own
            raise ModelError("onnxruntime failed while running the model", why=_reason(error)) from error


def extract(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """The part of ``model`` between two sets of named values as a model of its own."""
    graph_inputs = [value.name for value in model.graph.inputs]
    if list(inputs) == graph_inputs and list(outputs) == [value.name for value in model.graph.outputs]:
        return ir.to_proto(model)
    graph = model.graph
    known = {value.name or "": value for value in _values(graph)}
    missing = [name for name in (*inputs, *outputs) if name not in known]
    if missing:
        raise ModelError("this part cannot be cut out of the graph", why=f"it has no value {missing[0]!r}")
    given, made = [known[name] for name in inputs], [known[name] for name in outputs]
    nodes, read = _behind(graph, given, made)
    unbound = [value.name for value in graph.inputs if value in read and value not in given]
    if unbound:
        why = f"it reads {unbound[0]!r} too"
        raise ModelError("this part cannot be cut out of the graph", why=why)
    part = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in sorted(graph.opset_imports.items()):
        part.opset_import.add(domain=domain, version=version)
    part.graph.name = graph.name or "part"
    for value in given:
        if value in read and value.const_value is not None:
            kind = ir.TensorType(value.const_value.dtype)
            held = ir.Value(name=value.name, shape=value.const_value.shape, type=kind)  # type: ignore[arg-type]
            ir.serde.serialize_value_into(part.graph.input.add(), held)
        elif value in read:
            ir.serde.serialize_value_into(part.graph.input.add(), value)
    for value in graph.initializers.values():
        if value in read and value not in given and value.const_value is not None:
            tensor = part.graph.initializer.add()
            ir.serde.serialize_tensor_into(tensor, value.const_value)
            tensor.name = value.name
    for node in graph:
        if node in nodes:
            ir.serde.serialize_node_into(part.graph.node.add(), node)
    for value in made:
        ir.serde.serialize_value_into(part.graph.output.add(), value)
    return part


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _behind(
    graph: ir.Graph, given: Sequence[ir.Value], made: Sequence[ir.Value]
) -> tuple[set[ir.Node], set[ir.Value]]:
    """The nodes that make ``made`` of ``given``, and all values that they read or that are asked for."""
    nodes: set[ir.Node] = set()
    read: set[ir.Value] = set()
    pending = list(made)
    while pending:
        value = pending.pop()
        if value in read:
            continue
        read.add(value)
        node = value.producer()
        if node is not None and node not in nodes and value not in given:
            nodes.add(node)
            pending += (one for one in _reads(node) if one.graph is graph)
    return nodes, read


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """Its inputs, and for a node that holds graphs all that those read, their own values among them."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        held = [attribute.value] if attribute.type == ir.AttributeType.GRAPH else []
        for graph in attribute.value if attribute.type == ir.AttributeType.GRAPHS else held:
            yield from graph.outputs
            for inner in graph.all_nodes():
                yield from (value for value in inner.inputs if value is not None)


def stream(
    model: ir.Model, data: Dataset, tensors: Sequence[str], *, batch_size: int = 16, threads: int = 1
) -> Iterator[dict[str, Array]]:
    """Values of ``tensors`` (any names in the graph) batch by batch; nothing but one batch is held."""
    executor = Executor(model, outputs=tensors, threads=threads)
    for feeds in data.batches(batch_size):
        yield executor.run(feeds)


def _reason(error: BaseException) -> str:
    """The runtime's message without its code prefix and source location."""
    line = " ".join(str(error).split())
    for marker in ("Exception during initialization:", "Status Message:", "failed:"):
        if marker in line:
            line = line.split(marker, 1)[1].strip()
    if line.startswith("[ONNXRuntimeError]"):
        line = line.split(":", 3)[-1].strip()
    return line[:400]
