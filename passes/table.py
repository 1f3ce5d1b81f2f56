"""All passes, by name: edgec's own, then those of plug-ins. Each is imported when it is first used."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from edgec.graph import plugins
from edgec.graph.errors import UsageError, did_you_mean
from edgec.graph.plugins import Plugin
from edgec.passes.base import Pass
from edgec.passes.options import kinds

PASSES: dict[str, str] = {
    "normalise": "edgec.passes.normalise:Normalise",
    "merge-layers": "edgec.passes.merge_layers:MergeLayers",
    "resize-input": "edgec.passes.resize_input:ResizeInput",
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
    "learn-structure": "edgec.passes.learn_structure:LearnStructure",
    "distil": "edgec.passes.distil:Distil",
    "refine": "edgec.passes.refine:Refine",
    "equalize": "edgec.passes.equalize:Equalize",
    "quantize": "edgec.passes.quantize:Quantize",
    "refit-quantized": "edgec.passes.refit_quantized:RefitQuantized",
    "refine-quantized": "edgec.passes.refine_quantized:RefineQuantized",
    "round-weights": "edgec.passes.round_weights:RoundWeights",
    "correct-bias": "edgec.passes.correct_bias:CorrectBias",
    "quantize-weights": "edgec.passes.quantize_weights:QuantizeWeights",
    "cast-fp16": "edgec.passes.cast_fp16:CastFp16",
}
"""name -> module:class, in the order in which a user would meet them."""


def pass_names() -> tuple[str, ...]:
    """Names of all passes: edgec's own in the order of the table, then those of plug-ins."""
    brought = dict.fromkeys(one.name for one in plugins.plugins(plugins.PASSES) if one.name not in PASSES)
    return (*PASSES, *brought)


def pass_class(name: str) -> type[Pass]:
    """The class behind a name. Raises UsageError with a did-you-mean, and for a plug-in that cannot be used."""
    if name not in PASSES:
        brought = plugins.plugin(plugins.PASSES, name)
        if brought is None:
            raise UsageError(f"unknown pass {name!r}", hint=did_you_mean(name, pass_names()))
        found: type[Pass] = brought.load(fault)
        found.brought = brought
        return found
    module, _, attribute = PASSES[name].partition(":")
    cls: type[Pass] = getattr(import_module(module), attribute)
    return cls


def fault(brought: Plugin, cls: Any) -> str | None:
    """Why what a plug-in brings is no pass, or not the one that its entry point names; None where it is."""
    value = brought.entry.value
    if not isinstance(cls, type) or not issubclass(cls, Pass):
        return f"{value} is no subclass of edgec.passes.base.Pass"
    if inspect.isabstract(cls):
        return f"{value} lacks {', '.join(sorted(cls.__abstractmethods__))}"
    if "__dataclass_params__" not in vars(cls):
        return f"{value} is not decorated with @dataclass(frozen=True)"
    for attribute in ("name", "summary"):
        if not isinstance(getattr(cls, attribute, None), str):
            return f"{value} lacks its {attribute}"
    if cls.name != brought.name:
        return f"its entry point is called {brought.name!r}, the pass {cls.name!r}"
    try:
        kinds(cls)
    except Exception as error:  # noqa: BLE001  (annotations are evaluated: a plug-in's code, which raises what it likes)
        return f"the types of its options: {type(error).__name__}: {error}"
    return None
