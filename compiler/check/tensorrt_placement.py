"""Where pairs have to stand so that TensorRT makes int8 kernels of them, and what else it reads in a file.

Sources: nvidia-modelopt ``onnx/quantization`` for placement and thresholds; issues of NVIDIA/TensorRT by number.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from edgec.compiler.check.finding import Rule
from edgec.compiler.check.forks import branch_of
from edgec.compiler.check.onnx_view import DEQUANTIZE, QUANTIZE, OnnxView, attribute, label
from edgec.compiler.check.pairs import Pair, layers_on_codes, pair_of, same_scale, weight_of
from edgec.compiler.check.tensorrt_codes import Found, TensorrtView
from edgec.graph.spec import LAYERS

_NEVER = frozenset(
    {
        "Unique", "StringNormalizer", "TfIdfVectorizer", "SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss",
        "Multinomial", "MaxUnpool", "MaxRoiPool", "Det", "Compress", "SequenceConstruct", "SequenceAt",
        "SequenceInsert", "SequenceErase", "SequenceEmpty", "SequenceLength", "ConcatFromSequence", "SplitToSequence",
    }
)  # fmt: skip
_NARROW = 16


def _opset(view: TensorrtView) -> Found:
    if view.file.opset > view.jetpack.opset:
        text = f"opset {view.file.opset}: {view.jetpack} reads up to {view.jetpack.opset}"
        yield "error", "", text


def _unsupported(view: TensorrtView) -> Found:
    for node in view.file.nodes:
        if node.op_type in _NEVER and node.domain in ("", "ai.onnx"):
            yield "error", label(node), f"TensorRT has no {node.op_type}"


def _residual(view: TensorrtView) -> Found:
    for node in view.file.of("Add"):
        found = branch_of(view.file, node)
        if found is None:
            continue
        inputs = [_pair_before(view.file, name) for name in node.input]
        if inputs[found.branch] is not None:
            text = "a pair between the branch's last layer and this Add: they are two kernels instead of one"
            yield "warning", label(node), text
        elif inputs[1 - found.branch] is None and found.quantised:
            yield (
                "warning",
                label(node),
                "its skip has no pair: the layer before it cannot take the Add into its kernel",
            )


def _pair_before(file: OnnxView, name: str) -> Pair | None:
    """The pair that makes a tensor, in front of a Pad or not."""
    maker = file.makers.get(name)
    return pair_of(file, maker.input[0] if maker is not None and maker.op_type == "Pad" else name)


def _concat(view: TensorrtView) -> Found:
    for node in view.file.of("Concat"):
        pairs = [pair_of(view.file, name) for name in node.input]
        known = [one.dequantise for one in pairs if one is not None]
        behind = [one for one, index in view.file.readers.get(node.output[0], []) if one.op_type == QUANTIZE]
        if not known or not behind:
            continue
        if len(known) < len(pairs):
            yield (
                "warning",
                label(node),
                f"{len(known)} of {len(pairs)} inputs have a pair: it does not run on codes",
            )
        elif not all(same_scale(view.file, known[0], one) for one in (*known, *behind)):
            yield "warning", label(node), "its inputs and its output have several scales: each is requantised"


def _pad(view: TensorrtView) -> Found:
    for node in view.file.of("Pad"):
        readers = [one for one, _ in view.file.readers.get(node.output[0], [])]
        layers = [
            layer for one in readers if one.op_type == QUANTIZE for layer in _behind(view.file, one.output[0])
        ]
        if layers and pair_of(view.file, node.input[0]) is None:
            yield (
                "warning",
                label(node),
                "the pair stands behind this Pad: in front of it, Pad and layer are one kernel",
            )


def _behind(file: OnnxView, codes: str) -> list[onnx.NodeProto]:
    found = []
    for dequantise, _ in file.readers.get(codes, []):
        if dequantise.op_type == DEQUANTIZE:
            found += [
                one
                for one, index in file.readers.get(dequantise.output[0], [])
                if one.op_type in LAYERS and index == 0
            ]
    return found


def _depthwise_gates(view: TensorrtView) -> Found:
    """NVIDIA/TensorRT issues 3385 and 4060."""
    for layer in layers_on_codes(view.file):
        weight = weight_of(view.file, layer)
        depthwise = (
            layer.op_type == "Conv"
            and attribute(layer, "group", 1) > 1
            and weight is not None
            and weight.shape[1] == 1
        )
        if depthwise and _gated(view.file, layer.output[0]) and not view.jetpack.gates_depthwise:
            text = f"a depthwise convolution with a SiLU on codes: TensorRT {view.jetpack.version} finds no kernel"
            yield "error", label(layer), text


def _gated(file: OnnxView, value: str) -> bool:
    readers = [one for one, _ in file.readers.get(value, [])]
    gates = {one.output[0] for one in readers if one.op_type == "Sigmoid"}
    return any(one.op_type == "Swish" or (one.op_type == "Mul" and gates & set(one.input)) for one in readers)


def _narrow(view: TensorrtView) -> Found:
    for layer in layers_on_codes(view.file):
        weight = weight_of(view.file, layer)
        if weight is None or weight.ndim < 2:
            continue
        if layer.op_type in ("Gemm", "MatMul"):
            if min(weight.shape) < _NARROW:
                yield (
                    "warning",
                    label(layer),
                    f"a matrix {min(weight.shape)} wide on codes: no int8 kernel gains below {_NARROW}",
                )
            continue
        group = int(attribute(layer, "group", 1))
        outs, ins = weight.shape[:2] if layer.op_type == "Conv" else weight.shape[1::-1]
        if min(outs, ins) < _NARROW and not _kernel(view.file, layer, outs, ins, group, weight.shape[2:]):
            text = (
                f"{ins} channels in (per group) and {outs} out on codes: too few for an int8 kernel to gain"
            )
            yield "warning", label(layer), text


def _kernel(
    file: OnnxView, layer: onnx.NodeProto, outs: int, ins: int, group: int, kernel: tuple[int, ...]
) -> bool:
    if group > 1:
        return outs % 8 == 0 and min(kernel, default=1) >= 3
    pair = pair_of(file, layer.input[0])
    first = pair is not None and pair.quantise.input[0] in {value.name for value in file.inputs}
    return (outs % 8 == 0 or ins % 8 == 0) and (first or max(outs, ins) >= _NARROW) and len(set(kernel)) == 1


def _multiple(view: TensorrtView) -> Found:
    odd = [
        label(layer)
        for layer in layers_on_codes(view.file)
        if layer.op_type == "Conv"
        and (weight := weight_of(view.file, layer)) is not None
        and weight.shape[0] % 8
    ]
    if odd:
        yield (
            "warning",
            odd[0],
            f"{len(odd)} layers on codes have widths that are no multiple of 8: they are padded",
        )


def _islands(view: TensorrtView) -> Found:
    """Pairs whose codes come from float work and go to float work: reformats on both sides."""
    found = [
        node
        for node in view.file.nodes
        if node.op_type not in (QUANTIZE, DEQUANTIZE, *LAYERS)
        and node.input
        and pair_of(view.file, node.input[0]) is not None
        and any(one.op_type == QUANTIZE for one, _ in view.file.readers.get(node.output[0], []))
        and node.op_type in _FLOAT_WORK
    ]
    if found:
        yield (
            "note",
            label(found[0]),
            f"{len(found)} ops between DQ and Q have no int8 kernel: codes are unpacked and packed there",
        )


_FLOAT_WORK = frozenset(
    {"Sigmoid", "Softmax", "Mul", "Tanh", "HardSigmoid", "HardSwish", "Gelu", "Erf", "LayerNormalization"}
)


def _static(view: TensorrtView) -> Found:
    for value in view.file.inputs:
        shape = view.file.shape(value.name)
        if shape is None:
            yield "warning", value.name, "an input of unknown rank: TensorRT needs its shape"
        elif None in shape[1:]:
            text = "an input of open size: give trtexec --shapes, or export at one size, for which kernels are chosen best"
            yield "warning", value.name, text
        elif shape and shape[0] is None:
            yield (
                "note",
                value.name,
                "an open batch: the engine is built for a batch of 1 unless trtexec gets --shapes",
            )


def _typed(view: TensorrtView) -> Found:
    if not view.jetpack.strongly_typed:
        return
    kinds = {view.file.type_of(name) for node in view.file.nodes for name in node.output}
    layers = list(view.file.of(*LAYERS))
    if layers and TensorProto.FLOAT16 not in kinds:
        yield (
            "warning",
            "",
            f"no fp16 in the file: TensorRT {view.jetpack.version} takes types from the file, so what is no int8 runs in fp32",
        )
    if TensorProto.FLOAT16 in kinds and any(view.file.of(QUANTIZE)) and view.file.opset < 19:
        yield "error", "", "fp16 beside Q and DQ needs opset 19"


def _depths(view: TensorrtView) -> Found:
    for node in view.file.of("Resize"):
        mode = attribute(node, "mode", b"nearest")
        if view.before_10 and mode == b"cubic":
            yield (
                "error",
                label(node),
                f"cubic interpolation: TensorRT {view.jetpack.version} has nearest and linear",
            )
    for node in view.file.of("MaxPool"):
        if len([name for name in node.output if name]) > 1:
            yield "error", label(node), "its indices: TensorRT gives the pooled values only"
    for node in view.file.of("Conv", "ConvTranspose"):
        weight = weight_of(view.file, node)
        if weight is None and view.before_10:
            yield "error", label(node), "its weight is computed: TensorRT 8 wants a constant"
        elif weight is not None and not np.isfinite(weight).all():
            yield "error", label(node), "its weight holds NaN or infinity"


PLACEMENT_RULES: tuple[Rule[TensorrtView], ...] = (
    Rule("opset", "the opset is one that the release reads", _opset),
    Rule("op", "TensorRT has the op", _unsupported),
    Rule("op-form", "and its form of it", _depths),
    Rule("residual", "of a residual Add the skip alone has a pair", _residual),
    Rule("concat", "a Concat on codes has one scale", _concat),
    Rule("pad", "the pair stands in front of a Pad", _pad),
    Rule("depthwise-silu", "no depthwise convolution with SiLU on codes (TensorRT 8)", _depthwise_gates),
    Rule("narrow", "layers on codes have 16 channels or a kernel that takes fewer", _narrow),
    Rule("multiple", "widths are multiples of 8", _multiple),
    Rule("islands", "float work between codes costs two reformats", _islands),
    Rule("static", "shapes are fixed", _static),
    Rule("typed", "types for TensorRT 11 are in the file", _typed),
)
