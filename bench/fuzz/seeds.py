"""Sound little networks that mutations start from: together they hold every op and every form that edgec treats by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper as onh
import onnx.parser
import onnx.shape_inference

HEAD = '<ir_version: {ir}, opset_import: ["" : {opset}]>\n'

TEXTS: dict[str, tuple[int, str]] = {
    "conv": (18, """g (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[8,3,3,3] w1, float[8] b1, float[4,8,1,1] w2> {
        a = Conv <pads = [1,1,1,1], strides = [1,1], dilations = [1,1], group = 1, kernel_shape = [3,3]> (x, w1, b1)
        b = Relu (a)
        y = Conv (b, w2) }"""),
    "depthwise": (17, """g (float[N,4,8,8] x) => (float[N,6,4,4] y) <float[4,1,3,3] w1, float[4] b1, float[6,4,1,1] w2> {
        a = Conv <pads = [1,1,1,1], strides = [2,2], group = 4> (x, w1, b1)
        b = Clip (a, lo, hi)
        y = Conv (b, w2) }"""),
    "residual": (20, """g (float[N,3,8,8] x) => (float[N,5] y)
        <float[8,3,3,3] w1, float[8,8,3,3] w2, float[5,8] w3, float[5] b3> {
        a = Conv <pads = [1,1,1,1]> (x, w1)
        b = Relu (a)
        c = Conv <pads = [1,1,1,1]> (b, w2)
        d = Add (c, b)
        e = GlobalAveragePool (d)
        f = Flatten <axis = 1> (e)
        y = Gemm <alpha = 1.0, beta = 1.0, transB = 1> (f, w3, b3) }"""),
    "batchnorm": (15, """g (float[N,3,8,8] x) => (float[N,4,8,8] y)
        <float[4,3,1,1] w1, float[4] s, float[4] t, float[4] m, float[4] v> {
        a = Conv (x, w1)
        y = BatchNormalization <epsilon = 0.001> (a, s, t, m, v) }"""),
    "pools": (18, """g (float[N,3,9,9] x) => (float[N,4,2,2] y) <float[4,3,3,3] w1> {
        a = MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1], ceil_mode = 1> (x)
        b = Conv <pads = [1,1,1,1]> (a, w1)
        y = AveragePool <kernel_shape = [2,2], strides = [2,2], ceil_mode = 0, count_include_pad = 1> (b) }"""),
    "lppool": (18, """g (float[N,3,9,9] x) => (y) {
        a = LpPool <kernel_shape = [3,3], strides = [2,2], p = 2> (x)
        y = LRN <size = 3, alpha = 0.0001, beta = 0.75, bias = 1.0> (a) }"""),
    "resize": (18, """g (float[N,3,6,6] x) => (y) <float[4,3,1,1] w1> {
        a = Conv (x, w1)
        s = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> ()
        y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (a, , s) }"""),
    "resize_sizes": (19, """g (float[N,3,6,6] x) => (y) <float[4,3,1,1] w1> {
        a = Conv (x, w1)
        s = Constant <value_ints = [9, 9]> ()
        y = Resize <mode = "nearest", axes = [2,3], nearest_mode = "floor"> (a, , , s) }"""),
    "upsample": (9, """g (float[1,3,6,6] x) => (y) {
        s = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()
        y = Upsample <mode = "nearest"> (x, s) }"""),
    "concat": (18, """g (float[N,4,6,6] x) => (y) <float[4,2,1,1] w1, float[4,8,1,1] w2> {
        a, b = Split <axis = 1, num_outputs = 2> (x)
        c = Conv (a, w1)
        d = Concat <axis = 1> (c, b, a)
        y = Conv (d, w2) }"""),
    "reshape": (18, """g (float[N,4,6,6] x) => (y) <float[144,7] w1, float[7] b1> {
        s = Shape <start = 0, end = 1> (x)
        m = Constant <value_ints = [-1]> ()
        t = Concat <axis = 0> (s, m)
        a = Reshape <allowzero = 0> (x, t)
        b = MatMul (a, w1)
        c = Add (b, b1)
        y = Softmax <axis = -1> (c) }"""),
    "shapes": (18, """g (float[1,4,6,6] x) => (y) {
        s = Shape (x)
        i = Constant <value_int = 1> ()
        n = Gather <axis = 0> (s, i)
        z = Constant <value_int = 0> ()
        o = Constant <value_int = 1> ()
        r = Range (z, n, o)
        f = Cast <to = 1> (r)
        a1 = Constant <value_ints = [0, 2, 3]> ()
        u = Unsqueeze (f, a1)
        e = Expand (u, s)
        k = ConstantOfShape <value = float[1] {2.0}> (s)
        w = Mul (e, k)
        y = Add (x, w) }"""),
    "slices": (18, """g (float[N,4,8,8] x) => (y) {
        b = Constant <value_ints = [0, 1]> ()
        e = Constant <value_ints = [8, 7]> ()
        a = Constant <value_ints = [2, 3]> ()
        s = Constant <value_ints = [2, 1]> ()
        p = Slice (x, b, e, a, s)
        t = Transpose <perm = [0,2,3,1]> (p)
        r = Constant <value_ints = [1,1,1,2]> ()
        y = Tile (t, r) }"""),
    "pads": (18, """g (float[N,3,6,6] x) => (y) <float[4,3,3,3] w1> {
        p = Constant <value_ints = [0,0,1,1,0,0,1,1]> ()
        v = Constant <value_float = 0.0> ()
        a = Pad <mode = "constant"> (x, p, v)
        b = Conv (a, w1)
        y = Pad <mode = "reflect"> (b, p) }"""),
    "qdq": (19, """g (float[N,3,6,6] x) => (y) {
        s = Constant <value = float {0.05}> ()
        z = Constant <value = uint8 {128}> ()
        a = QuantizeLinear (x, s, z)
        b = DequantizeLinear (a, s, z)
        w = Constant <value = int8[2,3,1,1] {1,2,3,4,5,-6}> ()
        ws = Constant <value = float[2] {0.1, 0.2}> ()
        wz = Constant <value = int8[2] {0, 0}> ()
        c = DequantizeLinear <axis = 0> (w, ws, wz)
        d = Conv (b, c)
        e = QuantizeLinear (d, s, z)
        y = DequantizeLinear (e, s, z) }"""),
    "qlinear": (18, """g (float[N,3,6,6] x) => (y) {
        s = Constant <value = float {0.05}> ()
        z = Constant <value = uint8 {128}> ()
        a = QuantizeLinear (x, s, z)
        w = Constant <value = int8[2,3,1,1] {1,2,3,4,5,-6}> ()
        ws = Constant <value = float {0.1}> ()
        wz = Constant <value = int8 {0}> ()
        b = QLinearConv (a, s, z, w, ws, wz, s, z)
        y = DequantizeLinear (b, s, z) }"""),
    "deconv": (18, """g (float[N,4,5,5] x) => (y) <float[4,3,2,2] w1, float[3] b1> {
        y = ConvTranspose <strides = [2,2], pads = [0,0,0,0], output_padding = [0,0], group = 1> (x, w1, b1) }"""),
    "squeeze_excite": (18, """g (float[N,4,6,6] x) => (y) <float[2,4,1,1] w1, float[4,2,1,1] w2> {
        a = GlobalAveragePool (x)
        b = Conv (a, w1)
        c = HardSwish (b)
        d = Conv (c, w2)
        e = HardSigmoid <alpha = 0.2, beta = 0.5> (d)
        y = Mul (x, e) }"""),
    "reduces": (18, """g (float[N,4,6,6] x) => (y) {
        a = Constant <value_ints = [2, 3]> ()
        b = ReduceMean <keepdims = 1> (x, a)
        c = Sub (x, b)
        d = Mul (c, c)
        e = ReduceSum <keepdims = 0> (d, a)
        f = Sqrt (e)
        g2 = ArgMax <axis = 1, keepdims = 0> (f)
        y = Cast <to = 1> (g2) }"""),
    "attention": (18, """g (float[N,5,8] x) => (y) <float[8,8] wq, float[8,8] wk, float[8] sc, float[8] bi> {
        n = LayerNormalization <axis = -1> (x, sc, bi)
        q = MatMul (n, wq)
        k = MatMul (n, wk)
        t = Transpose <perm = [0,2,1]> (k)
        a = MatMul (q, t)
        s = Softmax <axis = -1> (a)
        y = Einsum <equation = "bij,bjk->bik"> (s, x) }"""),
    "norms": (18, """g (float[N,4,6,6] x) => (y) <float[4] s, float[4] b, float[4,1,1] p> {
        a = InstanceNormalization (x, s, b)
        c = PRelu (a, p)
        d = DepthToSpace <blocksize = 2, mode = "DCR"> (c)
        e = SpaceToDepth <blocksize = 2> (d)
        f = Elu <alpha = 1.0> (e)
        y = LeakyRelu <alpha = 0.1> (f) }"""),
    "grid": (20, """g (float[1,2,4,4] x, float[1,3,3,2] grid) => (y) {
        y = GridSample <mode = "linear", padding_mode = "zeros", align_corners = 0> (x, grid) }"""),
    "topk": (18, """g (float[N,16] x) => (y, i) {
        k = Constant <value_ints = [3]> ()
        y, i = TopK <axis = -1, largest = 1, sorted = 1> (x, k) }"""),
    "nms": (18, """g (float[1,6,4] boxes, float[1,1,6] scores) => (y) {
        m = Constant <value_ints = [3]> ()
        t = Constant <value_floats = [0.5]> ()
        y = NonMaxSuppression <center_point_box = 0> (boxes, scores, m, t, t) }"""),
    "gathernd": (18, """g (float[N,4,4] x) => (y) {
        i = Constant <value = int64[1,1] {0}> ()
        a = GatherND <batch_dims = 0> (x, i)
        j = Constant <value = int64[1] {0}> ()
        b = Gather <axis = 1> (x, j)
        z = ScatterND <reduction = "none"> (x, i, a)
        y = Concat <axis = 1> (z, b) }"""),
    "if": (18, """g (float[N,3,4,4] x) => (y) {
        c = Constant <value = bool {1}> ()
        y = If (c) <then_branch = t () => (float[N,3,4,4] a) { a = Relu (x) },
                    else_branch = e () => (float[N,3,4,4] b) { b = Neg (x) }> }"""),
    "if_open": (18, """g (float[N,3,4,4] x, bool c) => (y) {
        y = If (c) <then_branch = t () => (float[N,3,4,4] a) { a = Relu (x) },
                    else_branch = e () => (float[N,3,4,4] b) { b = Neg (x) }> }"""),
    "loop": (18, """g (float[1,3] x) => (y) {
        n = Constant <value_int = 3> ()
        c = Constant <value = bool {1}> ()
        y, z = Loop (n, c, x) <body = b (int64 i, bool ci, float[1,3] s) => (bool co, float[1,3] so, float[1,3] sc) {
            co = Identity (ci)
            so = Add (s, s)
            sc = Relu (so) }> }"""),
    "scan": (18, """g (float[4,3] x, float[3] s) => (y, z) {
        y, z = Scan <num_scan_inputs = 1, body = b (float[3] a, float[3] e) => (float[3] o, float[3] p) {
            o = Add (a, e)
            p = Identity (o) }> (s, x) }"""),
    "lstm": (18, """g (float[5,1,3] x) => (y) <float[1,16,3] w, float[1,16,4] r> {
        y, h, c = LSTM <hidden_size = 4, direction = "forward"> (x, w, r) }"""),
    "int_input": (18, """g (int64[N,4] x) => (y) <float[16,8] w, float[3,8] w2> {
        a = Gather <axis = 0> (w, x)
        k = Constant <value_ints = [1]> ()
        b = ReduceMean <keepdims = 0> (a, k)
        y = Gemm <transB = 1> (b, w2) }"""),
    "uint8_input": (18, """g (uint8[N,8,8,3] x) => (y) <float[4,3,3,3] w1> {
        a = Cast <to = 1> (x)
        s = Constant <value_float = 0.0039> ()
        b = Mul (a, s)
        c = Transpose <perm = [0,3,1,2]> (b)
        d = Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (c, w1)
        y = Transpose <perm = [0,2,3,1]> (d) }"""),
    "strings": (18, """g (string[N] x) => (y) {
        t = Constant <value_strings = ["a", "b"]> ()
        y = Concat <axis = 0> (x, t) }"""),
    "sequence": (18, """g (float[N,3] x) => (y) {
        s = SequenceConstruct (x, x)
        i = Constant <value_int = 0> ()
        y = SequenceAt (s, i) }"""),
    "old": (7, """g (float[1,3,8,8] x) => (y) <float[4,3,3,3] w1, float[4] s, float[4] t, float[4] m, float[4] v> {
        a = Conv <pads = [1,1,1,1]> (x, w1)
        b = BatchNormalization (a, s, t, m, v)
        c = Dropout <ratio = 0.5> (b)
        y = Softmax <axis = 1> (c) }"""),
    "newest": (23, """g (float[N,3,8,8] x) => (y) <float[4,3,1,1] w1> {
        a = Conv (x, w1)
        y = Gelu <approximate = "tanh"> (a) }"""),
    "conv1d": (18, """g (float[N,3,16] x) => (y) <float[4,3,3] w1> {
        a = Conv <pads = [1,1]> (x, w1)
        b = MaxPool <kernel_shape = [2], strides = [2]> (a)
        y = Sigmoid (b) }"""),
    "conv3d": (18, """g (float[N,2,4,4,4] x) => (y) <float[3,2,3,3,3] w1> {
        a = Conv <pads = [1,1,1,1,1,1]> (x, w1)
        y = Tanh (a) }"""),
}  # fmt: skip


def _filled(model: onnx.ModelProto) -> onnx.ModelProto:
    """Initialisers that were declared without values get random ones; names that nothing makes become scalars."""
    rng = np.random.default_rng(0)
    made = {name for node in model.graph.node for name in node.output} | {v.name for v in model.graph.input}
    for value in model.graph.value_info:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = (rng.standard_normal(shape) / max(1, np.prod(shape[1:])) ** 0.5).astype(np.float32)
        array = np.abs(array) if value.name == "v" else array
        model.graph.initializer.append(onh.from_array(array, value.name))
        made.add(value.name)
    del model.graph.value_info[:]
    for name, amount in (("lo", 0.0), ("hi", 6.0)):
        if any(name in node.input for node in model.graph.node) and name not in made:
            model.graph.initializer.append(onh.from_array(np.float32(amount), name))
    return typed(model)


def typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """With the types of its outputs, guessed where they cannot be known: without them nothing gets past the checker."""
    with suppress(Exception):  # whatever the library says of a broken model
        known = onnx.shape_inference.infer_shapes(model)
        for output, found in zip(model.graph.output, known.graph.output, strict=True):
            output.CopyFrom(found)
    for output in model.graph.output:
        kind = output.type.tensor_type
        if output.type.WhichOneof("value") == "tensor_type" or not output.HasField("type"):
            kind.elem_type = kind.elem_type or onnx.TensorProto.FLOAT
            if not kind.HasField("shape"):
                kind.shape.dim.add().dim_param = "unknown"
    return model


def parsed(name: str) -> onnx.ModelProto:
    """The seed ``name`` of TEXTS."""
    opset, text = TEXTS[name]
    ir = {7: 6, 9: 6, 23: 11}.get(opset, 9)
    return _filled(onnx.parser.parse_model(HEAD.format(ir=ir, opset=opset) + text))


def half() -> onnx.ModelProto:
    """The residual network with float16 weights and input."""
    model = parsed("residual")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onh.from_array(onh.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model


def constants() -> onnx.ModelProto:
    """The conv network with its weights in Constant nodes."""
    model = parsed("conv")
    nodes = [oh.make_node("Constant", [], [t.name], f"c_{t.name}", value=t) for t in model.graph.initializer]
    del model.graph.initializer[:]
    nodes += list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def function() -> onnx.ModelProto:
    """A local function with an attribute, called twice."""
    return onnx.parser.parse_model("""<ir_version: 9, opset_import: ["" : 18, "local" : 1]>
        g (float[N,3,4,4] x) => (float[N,3,4,4] y) {
            a = local.act <slope = 0.1> (x)
            y = local.act <slope = 0.2> (a) }
        <opset_import: ["" : 18], domain: "local">
        act <slope> (u) => (w) { w = LeakyRelu <alpha: float = @slope> (u) }""")


def sparse() -> onnx.ModelProto:
    """A sparse initialiser."""
    model = onnx.parser.parse_model(
        HEAD.format(ir=9, opset=18) + "g (float[N,4] x) => (float[N,3] y) { y = MatMul (x, w) }"
    )
    values = onh.from_array(np.float32([1, 2, 3]), "w")
    indices = onh.from_array(np.int64([0, 5, 11]), "w_indices")
    model.graph.sparse_initializer.append(oh.make_sparse_tensor(values, indices, [4, 3]))
    return model


def with_metadata() -> onnx.ModelProto:
    """Metadata, documentation, and annotations, as exporters write them."""
    model = parsed("conv")
    oh.set_model_props(model, {"author": "a person", "mean": "0.5,0.5,0.5", "labels": "cat,dog"})
    model.producer_name, model.doc_string, model.graph.doc_string = "pytorch", "words", "more words"
    for index, node in enumerate(model.graph.node):
        node.name, node.doc_string = f"/layer.{index}/{node.op_type}", "where it came from"
    return model


def old_inputs() -> onnx.ModelProto:
    """Initialisers that are inputs too, as IR version 3 had them."""
    model = parsed("conv")
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(oh.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


BUILT: dict[str, Callable[[], onnx.ModelProto]] = {
    "half": half,
    "constants": constants,
    "function": function,
    "sparse": sparse,
    "with_metadata": with_metadata,
    "old_inputs": old_inputs,
}
NAMES = (*TEXTS, *BUILT)


def seed(name: str) -> onnx.ModelProto:
    """A fresh copy of the seed ``name``."""
    return BUILT[name]() if name in BUILT else parsed(name)
