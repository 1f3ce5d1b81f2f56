"""All passes, by name. Each is imported when it is first used, so that listing names stays instant."""

from __future__ import annotations

from importlib import import_module

from edgec.graph.errors import UsageError, did_you_mean
from edgec.passes.base import Pass

PASSES: dict[str, str] = {
    "normalise": "edgec.passes.normalise:Normalise",
    "fold": "edgec.passes.fold:Fold",
    "fold-pointwise": "edgec.passes.fold_pointwise:FoldPointwise",
    "prune-channels": "edgec.passes.prune_channels:PruneChannels",
    "compress": "edgec.passes.compress:Compress",
    "recover-lsq": "edgec.passes.recover_lsq:RecoverLsq",
    "recover-fskd": "edgec.passes.recover_fskd:RecoverFskd",
    "recover-bias": "edgec.passes.recover_bias:RecoverBias",
    "remove-blocks": "edgec.passes.remove_blocks:RemoveBlocks",
    "decompose-svd": "edgec.passes.decompose_svd:DecomposeSvd",
    "decompose-channel": "edgec.passes.decompose_channel:DecomposeChannel",
    "decompose-spatial": "edgec.passes.decompose_spatial:DecomposeSpatial",
    "decompose-tucker": "edgec.passes.decompose_tucker:DecomposeTucker",
    "decompose-depthwise": "edgec.passes.decompose_depthwise:DecomposeDepthwise",
    "distill-convex": "edgec.passes.distill_convex:DistillConvex",
    "equalize": "edgec.passes.equalize:Equalize",
    "quantize": "edgec.passes.quantize:Quantize",
    "refit-quantized": "edgec.passes.refit_quantized:RefitQuantized",
    "round-weights": "edgec.passes.round_weights:RoundWeights",
    "correct-bias": "edgec.passes.correct_bias:CorrectBias",
    "quantize-weights": "edgec.passes.quantize_weights:QuantizeWeights",
    "cast-fp16": "edgec.passes.cast_fp16:CastFp16",
}
"""name -> module:class, in the order in which a user would meet them."""


def pass_class(name: str) -> type[Pass]:
    """The class behind a name. Raises UsageError with a did-you-mean."""
    if name not in PASSES:
        raise UsageError(f"unknown pass {name!r}", hint=did_you_mean(name, PASSES))
    module, _, attribute = PASSES[name].partition(":")
    cls: type[Pass] = getattr(import_module(module), attribute)
    return cls
