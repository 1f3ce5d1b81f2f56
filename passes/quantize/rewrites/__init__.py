"""Equivalent forms that have int8 kernels; each computes the same function as what it replaces.

=============  ===========================================================================================
`tokens`       a MatMul by a constant matrix, and the Add behind it -> ``Gemm`` between two Reshapes
`products`     Div by a constant, Neg, and squares and cubes -> ``Mul``
`affine`       BatchNormalization, and Mul and Add per channel -> the layer before, or a depthwise ``Conv``
`gates`        HardSigmoid -> ``Clip`` behind the layer before, or behind a depthwise ``Conv``
`pools`        global pools; paddings that are counted -> ``Pad``; dilated averages -> a depthwise ``Conv``
`pads`         zeros joined to a map -> ``Pad`` (`graph.zero_joins`); margins of some axes -> of all
`resize`       Resize by sizes of some axes -> by scales of all
`biases`       layers without a bias get one of zeros, into which corrections can write
=============  ===========================================================================================
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.zero_joins import pad_for_zeros
from edgec.passes.quantize.dialects import Dialect
from edgec.passes.quantize.rewrites.affine import use_affine_layers
from edgec.passes.quantize.rewrites.biases import add_biases
from edgec.passes.quantize.rewrites.gates import use_clips
from edgec.passes.quantize.rewrites.pads import pad_all_axes
from edgec.passes.quantize.rewrites.pools import use_pools
from edgec.passes.quantize.rewrites.products import use_products
from edgec.passes.quantize.rewrites.resize import use_scales
from edgec.passes.quantize.rewrites.tokens import use_gemms

_FOR_CODES = (
    use_products,
    use_gemms,
    use_affine_layers,
    use_clips,
    use_pools,
    pad_for_zeros,
    pad_all_axes,
    use_scales,
    add_biases,
)
_FOR_INPUTS = (pad_for_zeros, pad_all_axes, use_scales, add_biases)
"""Where only layers run on codes, gates and norms are float work, and cheapest as they are."""


def prepare(model: ir.Model, dialect: Dialect) -> int:
    """All rewrites that ``dialect`` has a use for, in place; the number of nodes changed."""
    return sum(step(model) for step in (_FOR_INPUTS if dialect.inputs_only else _FOR_CODES))
