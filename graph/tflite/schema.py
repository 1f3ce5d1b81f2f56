"""The part of the TFLite flatbuffer schema that edgec writes and reads, as tables.

``TABLES[name][field] = (slot, kind, default)``. Kinds are flatbuffers scalars, ``"string"``, ``"[kind]"`` for a vector,
``"Table"``/``"[Table]"``, and ``"options"`` or ``"indices"`` for a union, which takes two slots: its type, then itself.
A test holds every enum, slot and default here against the schema that ai-edge-litert ships.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3

_OPERATORS = """
ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP
FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION
LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN
SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD
UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE
UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX
DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER
GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL
NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR
ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD
RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL
REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG
ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY
SEGMENT_SUM BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D
IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL
CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL
BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD
UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR
RIGHT_SHIFT
"""

BUILTIN_OPERATORS: tuple[str, ...] = tuple(_OPERATORS.split())
"""Operator names by builtin code."""

BUILTIN_CODE = {name: code for code, name in enumerate(BUILTIN_OPERATORS)}

PLACEHOLDER_CODE = 127
"""What the old 8-bit field holds for codes that do not fit it."""


class TensorType(IntEnum):
    FLOAT32 = 0
    FLOAT16 = 1
    INT32 = 2
    UINT8 = 3
    INT64 = 4
    STRING = 5
    BOOL = 6
    INT16 = 7
    COMPLEX64 = 8
    INT8 = 9
    FLOAT64 = 10
    COMPLEX128 = 11
    UINT64 = 12
    RESOURCE = 13
    VARIANT = 14
    UINT32 = 15
    UINT16 = 16
    INT4 = 17


class Padding(IntEnum):
    SAME = 0
    VALID = 1


class ActivationFunctionType(IntEnum):
    NONE = 0
    RELU = 1
    RELU_N1_TO_1 = 2
    RELU6 = 3
    TANH = 4


class MirrorPadMode(IntEnum):
    REFLECT = 0
    SYMMETRIC = 1


Field = tuple[int, str, Any]

_ACTIVATION: Field = (0, "int8", 0)

TABLES: dict[str, dict[str, Field]] = {
    "Model": {
        "version": (0, "uint32", 0),
        "operator_codes": (1, "[OperatorCode]", None),
        "subgraphs": (2, "[SubGraph]", None),
        "description": (3, "string", None),
        "buffers": (4, "[Buffer]", None),
        "metadata": (6, "[Metadata]", None),
        "signature_defs": (7, "[SignatureDef]", None),
    },
    "OperatorCode": {
        "deprecated_builtin_code": (0, "int8", 0),
        "custom_code": (1, "string", None),
        "version": (2, "int32", 1),
        "builtin_code": (3, "int32", 0),
    },
    "SubGraph": {
        "tensors": (0, "[Tensor]", None),
        "inputs": (1, "[int32]", None),
        "outputs": (2, "[int32]", None),
        "operators": (3, "[Operator]", None),
        "name": (4, "string", None),
    },
    "Tensor": {
        "shape": (0, "[int32]", None),
        "type": (1, "int8", 0),
        "buffer": (2, "uint32", 0),
        "name": (3, "string", None),
        "quantization": (4, "QuantizationParameters", None),
        "sparsity": (6, "SparsityParameters", None),
        "shape_signature": (7, "[int32]", None),
    },
    "QuantizationParameters": {
        "scale": (2, "[float32]", None),
        "zero_point": (3, "[int64]", None),
        "quantized_dimension": (6, "int32", 0),
    },
    "SparsityParameters": {
        "traversal_order": (0, "[int32]", None),
        "block_map": (1, "[int32]", None),
        "dim_metadata": (2, "[DimensionMetadata]", None),
    },
    "DimensionMetadata": {
        "format": (0, "int8", 0),
        "dense_size": (1, "int32", 0),
        "array_segments": (2, "indices", None),
        "array_indices": (4, "indices", None),
    },
    "Int32Vector": {"values": (0, "[int32]", None)},
    "Uint16Vector": {"values": (0, "[uint16]", None)},
    "Uint8Vector": {"values": (0, "[uint8]", None)},
    "Operator": {
        "opcode_index": (0, "uint32", 0),
        "inputs": (1, "[int32]", None),
        "outputs": (2, "[int32]", None),
        "builtin_options": (3, "options", None),
        "custom_options": (5, "[uint8]", None),
    },
    "Buffer": {"data": (0, "[uint8]", None), "offset": (1, "uint64", 0), "size": (2, "uint64", 0)},
    "Metadata": {"name": (0, "string", None), "buffer": (1, "uint32", 0)},
    "SignatureDef": {
        "inputs": (0, "[TensorMap]", None),
        "outputs": (1, "[TensorMap]", None),
        "signature_key": (2, "string", None),
        "subgraph_index": (4, "uint32", 0),
    },
    "TensorMap": {"name": (0, "string", None), "tensor_index": (1, "uint32", 0)},
    "Conv2DOptions": {
        "padding": (0, "int8", 0),
        "stride_w": (1, "int32", 0),
        "stride_h": (2, "int32", 0),
        "fused_activation_function": (3, "int8", 0),
        "dilation_w_factor": (4, "int32", 1),
        "dilation_h_factor": (5, "int32", 1),
        "quantized_bias_type": (6, "int8", 0),
    },
    "DepthwiseConv2DOptions": {
        "padding": (0, "int8", 0),
        "stride_w": (1, "int32", 0),
        "stride_h": (2, "int32", 0),
        "depth_multiplier": (3, "int32", 0),
        "fused_activation_function": (4, "int8", 0),
        "dilation_w_factor": (5, "int32", 1),
        "dilation_h_factor": (6, "int32", 1),
    },
    "Pool2DOptions": {
        "padding": (0, "int8", 0),
        "stride_w": (1, "int32", 0),
        "stride_h": (2, "int32", 0),
        "filter_width": (3, "int32", 0),
        "filter_height": (4, "int32", 0),
        "fused_activation_function": (5, "int8", 0),
    },
    "FullyConnectedOptions": {
        "fused_activation_function": _ACTIVATION,
        "weights_format": (1, "int8", 0),
        "keep_num_dims": (2, "bool", False),
        "asymmetric_quantize_inputs": (3, "bool", False),
        "quantized_bias_type": (4, "int8", 0),
    },
    "TransposeConvOptions": {
        "padding": (0, "int8", 0),
        "stride_w": (1, "int32", 0),
        "stride_h": (2, "int32", 0),
        "fused_activation_function": (3, "int8", 0),
        "quantized_bias_type": (4, "int8", 0),
    },
    "AddOptions": {"fused_activation_function": _ACTIVATION, "pot_scale_int16": (1, "bool", True)},
    "SubOptions": {"fused_activation_function": _ACTIVATION, "pot_scale_int16": (1, "bool", True)},
    "MulOptions": {"fused_activation_function": _ACTIVATION},
    "DivOptions": {"fused_activation_function": _ACTIVATION},
    "ConcatenationOptions": {"axis": (0, "int32", 0), "fused_activation_function": (1, "int8", 0)},
    "L2NormOptions": {"fused_activation_function": _ACTIVATION},
    "PackOptions": {"values_count": (0, "int32", 0), "axis": (1, "int32", 0)},
    "UnpackOptions": {"num": (0, "int32", 0), "axis": (1, "int32", 0)},
    "SoftmaxOptions": {"beta": (0, "float32", 0.0)},
    "ReshapeOptions": {"new_shape": (0, "[int32]", None)},
    "ReducerOptions": {"keep_dims": (0, "bool", False)},
    "ResizeBilinearOptions": {"align_corners": (2, "bool", False), "half_pixel_centers": (3, "bool", False)},
    "ResizeNearestNeighborOptions": {
        "align_corners": (0, "bool", False),
        "half_pixel_centers": (1, "bool", False),
    },
    "MirrorPadOptions": {"mode": (0, "int8", 0)},
    "GatherOptions": {"axis": (0, "int32", 0), "batch_dims": (1, "int32", 0)},
    "StridedSliceOptions": {
        "begin_mask": (0, "int32", 0),
        "end_mask": (1, "int32", 0),
        "ellipsis_mask": (2, "int32", 0),
        "new_axis_mask": (3, "int32", 0),
        "shrink_axis_mask": (4, "int32", 0),
    },
    "SplitOptions": {"num_splits": (0, "int32", 0)},
    "SplitVOptions": {"num_splits": (0, "int32", 0)},
    "CastOptions": {"in_data_type": (0, "int8", 0), "out_data_type": (1, "int8", 0)},
    "LeakyReluOptions": {"alpha": (0, "float32", 0.0)},
    "ArgMaxOptions": {"output_type": (0, "int8", 0)},
    "ArgMinOptions": {"output_type": (0, "int8", 0)},
    "BatchMatMulOptions": {"adj_x": (0, "bool", False), "adj_y": (1, "bool", False)},
    "DepthToSpaceOptions": {"block_size": (0, "int32", 0)},
    "SpaceToDepthOptions": {"block_size": (0, "int32", 0)},
    "GeluOptions": {"approximate": (0, "bool", False)},
    "CumsumOptions": {"exclusive": (0, "bool", False), "reverse": (1, "bool", False)},
}

OPTIONS_CODE: dict[str, int] = {
    "Conv2DOptions": 1,
    "DepthwiseConv2DOptions": 2,
    "Pool2DOptions": 5,
    "FullyConnectedOptions": 8,
    "SoftmaxOptions": 9,
    "ConcatenationOptions": 10,
    "AddOptions": 11,
    "L2NormOptions": 12,
    "ResizeBilinearOptions": 15,
    "ReshapeOptions": 17,
    "SpaceToDepthOptions": 19,
    "MulOptions": 21,
    "GatherOptions": 23,
    "ReducerOptions": 27,
    "SubOptions": 28,
    "DivOptions": 29,
    "StridedSliceOptions": 32,
    "SplitOptions": 35,
    "CastOptions": 37,
    "ArgMaxOptions": 40,
    "TransposeConvOptions": 49,
    "ArgMinOptions": 57,
    "PackOptions": 59,
    "UnpackOptions": 64,
    "ResizeNearestNeighborOptions": 74,
    "LeakyReluOptions": 75,
    "MirrorPadOptions": 77,
    "SplitVOptions": 79,
    "DepthToSpaceOptions": 94,
    "BatchMatMulOptions": 101,
    "CumsumOptions": 102,
    "GeluOptions": 116,
}
"""Discriminators of the union of operator options."""

UNIONS: dict[str, dict[int, str]] = {
    "options": {code: name for name, code in OPTIONS_CODE.items()},
    "indices": {1: "Int32Vector", 2: "Uint16Vector", 3: "Uint8Vector"},
}
"""Tables of each kind of union by discriminator."""

OPERATOR_OPTIONS: dict[str, str] = {
    "ADD": "AddOptions",
    "ARG_MAX": "ArgMaxOptions",
    "ARG_MIN": "ArgMinOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "CUMSUM": "CumsumOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "DIV": "DivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GELU": "GeluOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MIRROR_PAD": "MirrorPadOptions",
    "MUL": "MulOptions",
    "PACK": "PackOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "REDUCE_PROD": "ReducerOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "SPLIT": "SplitOptions",
    "SPLIT_V": "SplitVOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "SUM": "ReducerOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "UNPACK": "UnpackOptions",
}
"""The options table of each operator that has fields to write; other operators carry none."""
