"""What the canonical graph may hold, as a table.

``CANONICAL`` are the ops that edgec reads and reasons about; a node of any other type is *opaque*: it runs, it is
emitted to ONNX untouched, and no pass changes anything that it reads or writes. ``REFUSED`` are the ops that `load`
turns away, each with the reason.
"""

from __future__ import annotations

import onnx_ir as ir

MIN_OPSET = 18

CONV = frozenset({"Conv", "ConvTranspose"})
LINEAR = frozenset({"Gemm", "MatMul"})
ACTIVATION = frozenset(
    {
        "Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Gelu", "Mish", "Elu",
        "Selu", "Celu", "Softplus", "Softsign", "ThresholdedRelu", "Swish",
    }
)  # fmt: skip
UNARY = frozenset(
    {
        "Exp",
        "Log",
        "Sqrt",
        "Reciprocal",
        "Abs",
        "Neg",
        "Erf",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Identity",
        "Cast",
    }
)
LAYERS = CONV | LINEAR
"""Ops whose second operand is a weight, where it is constant."""
BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"})
POOL = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
REDUCE = frozenset({"ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin"})
LAYOUT = frozenset(
    {
        "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Split", "Slice", "Gather", "Pad",
        "Resize", "DepthToSpace", "SpaceToDepth", "Expand",
    }
)  # fmt: skip
NORMALISATION = frozenset({"BatchNormalization"})
HEAD = frozenset({"Softmax", "LogSoftmax", "ArgMax", "TopK"})
QUANTISATION = frozenset({"QuantizeLinear", "DequantizeLinear"})

CANONICAL = (
    CONV | LINEAR | ACTIVATION | UNARY | BINARY | POOL | REDUCE | LAYOUT | NORMALISATION | HEAD | QUANTISATION
)

SUBGRAPH = dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), "it holds a graph of its own")
RECURRENT = dict.fromkeys(("RNN", "GRU", "LSTM"), "recurrent layers are not supported")
_RANDOM_OPS = (
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli",
)  # fmt: skip
RANDOM = dict.fromkeys(_RANDOM_OPS, "its output is random")
REFUSED: dict[str, str] = {**SUBGRAPH, **RECURRENT, **RANDOM}

SELECTING = ("NonMaxSuppression", "NonZero", "Unique", "Compress")
"""Ops whose outputs have as many entries as the values say."""
KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})

_FLOATS = (ir.DataType.FLOAT, None)


def is_opaque(node: ir.Node) -> bool:
    """True where edgec does not understand ``node``: another op, another domain, or not float32 at its output."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in CANONICAL:
        return True
    if node.op_type in QUANTISATION or node.op_type in ("Cast", "ArgMax", "TopK"):
        return False
    return any(output.dtype not in _FLOATS for output in node.outputs)
