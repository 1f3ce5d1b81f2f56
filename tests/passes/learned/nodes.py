"""One node as a graph, run by onnxruntime and by torch: what the tests of the ops share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from edgec.graph.errors import UnsupportedError
from edgec.graph.execute import session
from edgec.passes.learned.executor import GraphModule

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Case:
    """One node: ``x`` are its computed operands, ``constants`` the others, by position."""

    op: str
    x: Mapping[int, Array]
    constants: Mapping[int, Array] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 20

    def proto(self) -> onnx.ModelProto:
        count = 1 + max((*self.x, *self.constants))
        names = ["" if i not in self.x and i not in self.constants else f"v{i}" for i in range(count)]
        made = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, names, made, name="node", **self.attributes)
        graph = helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info(f"v{i}", helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for i, a in self.x.items()],
            [helper.make_empty_tensor_value_info(name) for name in made],
            [numpy_helper.from_array(a, f"v{i}") for i, a in self.constants.items()],
        )  # fmt: skip
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
        for value in inferred.graph.output:
            assert value.type.tensor_type.elem_type != TensorProto.UNDEFINED
        return inferred

    def model(self) -> ir.Model:
        return ir.from_proto(self.proto())

    def check(self, tolerance: float = 1e-5) -> None:
        """Both give the same, and torch knows the way back."""
        feeds = {f"v{i}": array for i, array in self.x.items()}
        try:
            wanted = session(self.proto(), fused=False).run(None, feeds)
        except (
            UnsupportedError,
            InvalidArgument,
        ) as error:  # 1.23 knows no opset 24, and less of LayerNormalization
            pytest.skip(f"this onnxruntime cannot run it: {error}")
        module = GraphModule(self.model())
        inputs = [torch.from_numpy(array.copy()) for array in self.x.values()]
        for one in inputs:
            one.requires_grad_(one.is_floating_point())
        found = module(*inputs)
        found = found if isinstance(found, tuple) else (found,)
        for mine, his in zip(found, wanted, strict=True):
            made = mine.detach().numpy()
            assert made.dtype == his.dtype
            assert made.shape == his.shape
            scale = max(1e-6, float(np.abs(his[np.isfinite(his)], dtype=np.float64).max(initial=0)))
            np.testing.assert_allclose(made / scale, his / scale, atol=tolerance)


def normal(shape: Sequence[int], seed: int = 0, scale: float = 1.0) -> Array:
    """Gaussian numbers."""
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def positive(shape: Sequence[int], seed: int = 0) -> Array:
    """Numbers between 0.5 and 3.5."""
    return (0.5 + 3 * np.random.default_rng(seed).random(shape)).astype(np.float32)


def whole(*values: int) -> Array:
    return np.asarray(values, np.int64)


def shapes(rank_low: int, rank_high: int, most: int = 5) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(1, most), min_size=rank_low, max_size=rank_high).map(tuple)
