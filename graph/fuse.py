"""Constants folded, and BatchNorm, affine and pad chains fused into the layers beside them, which keep their names."""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.affine import fold_affine
from edgec.graph.affine_ahead import carry_ahead
from edgec.graph.einsum import lower_einsums
from edgec.graph.expand import drop_expands
from edgec.graph.gemms import write_gemms_plainly
from edgec.graph.in_order import drop_gathers_in_order
from edgec.graph.neighbours import keep_lrns_whole
from edgec.graph.padding import write_out_pads
from edgec.graph.quiet import LIBRARIES, quiet_log
from edgec.graph.spec import LAYERS
from edgec.graph.split_heads import split_heads
from edgec.graph.uniform import shrink_uniform
from edgec.graph.zero_joins import pad_for_zeros

NAME_KEY = "edgec.name"


def fuse(model: ir.Model) -> bool:
    """Fold constants and fuse BatchNorm, affine and pad chains in place; True when anything changed."""
    from onnxscript import optimizer
    from onnxscript.rewriter import RewriteRuleSet
    from onnxscript.rewriter.rules import common as rules

    before = model.graph.num_nodes()
    for node in model.graph:
        if node.op_type in LAYERS:
            node.metadata_props[NAME_KEY] = node.name or ""
    rule_set = RewriteRuleSet(
        [
            rules.fuse_batchnorm_into_conv_rule,
            rules.fuse_batchnorm_into_conv_transpose_rule,
            rules.fuse_batchnorm_into_gemm_rule,
            rules.conv_affine_fusion_rule,
            rules.affine_conv_fusion_rule,
            rules.normalize_pad_format_conv_rule,
            rules.fuse_pad_into_conv_rule,
        ]
    )
    with quiet_log(*LIBRARIES):
        optimizer.optimize_ir(model)
        fired = rule_set.apply_to_model(model)
        fired += (
            lower_einsums(model)
            + drop_expands(model)
            + drop_gathers_in_order(model)
            + shrink_uniform(model)
            + pad_for_zeros(model)
            + write_gemms_plainly(model)
            + fold_affine(model)
            + carry_ahead(model)
            + write_out_pads(model)
            + split_heads(model)
        )
        fired += keep_lrns_whole(model)
        if fired:
            optimizer.optimize_ir(model)
    _restore_names(model)
    return bool(fired) or model.graph.num_nodes() != before


def _restore_names(model: ir.Model) -> None:
    taken = {node.name for node in model.graph if NAME_KEY not in node.metadata_props}
    for node in model.graph:
        name = node.metadata_props.pop(NAME_KEY, "").split(",")[0].strip()
        if name and name not in taken:
            node.name = name
            taken.add(name)
        node.metadata_props.clear()
