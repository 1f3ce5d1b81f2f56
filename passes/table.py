"""All passes, by name: edgec's own, then those of plug-ins. Each is imported when it is first used."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from edgec.graph import plugins
from edgec.graph.errors import EdgecError, UsageError, did_you_mean
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
    "refine": "edgec.passes.refine:Refine",
    "equalize": "edgec.passes.equalize:Equalize",
    "quantize": "edgec.passes.quantize:Quantize",
    "refit-quantized": "edgec.passes.refit_quantized:RefitQuantized",
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


def pass_plugin(name: str) -> Plugin | None:
    """The plug-in that brings the pass ``name``; None for edgec's own. Raises UsageError where several bring it."""
    return None if name in PASSES else plugins.plugin(plugins.PASSES, name)


def pass_class(name: str) -> type[Pass]:
    """The class behind a name. Raises UsageError with a did-you-mean, and for a plug-in that cannot be used."""
    if name not in PASSES:
        brought = pass_plugin(name)
        if brought is None:
            raise UsageError(f"unknown pass {name!r}", hint=did_you_mean(name, pass_names()))
        return plugin_pass(brought)
    module, _, attribute = PASSES[name].partition(":")
    cls: type[Pass] = getattr(import_module(module), attribute)
    return cls


def plugin_pass(brought: Plugin) -> type[Pass]:
    """The class that a plug-in brings. Raises UsageError where it is no pass, or not the one that its entry point names."""
    cls = brought.load()
    value = brought.entry.value
    if not isinstance(cls, type) or not issubclass(cls, Pass):
        raise brought.unusable(f"{value} is no subclass of edgec.passes.base.Pass")
    if inspect.isabstract(cls):
        raise brought.unusable(f"{value} lacks {', '.join(sorted(cls.__abstractmethods__))}")
    if "__dataclass_params__" not in vars(cls):
        raise brought.unusable(f"{value} is not decorated with @dataclass(frozen=True)")
    for attribute in ("name", "summary"):
        if not isinstance(getattr(cls, attribute, None), str):
            raise brought.unusable(f"{value} lacks its {attribute}")
    if cls.name != brought.name:
        raise brought.unusable(f"its entry point is called {brought.name!r}, the pass {cls.name!r}")
    try:
        kinds(cls)
    except Exception as error:  # annotations of a plug-in are evaluated: its code, which raises what it likes
        raise brought.unusable(f"the types of its options: {type(error).__name__}: {error}") from error
    return cls


@contextmanager
def blamed(name: str) -> Iterator[None]:
    """Around code of the pass ``name``: what goes wrong in that of a plug-in names the plug-in."""
    try:
        yield
    except (EdgecError, OSError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # of a plug-in's code, which raises what it likes; edgec's own goes on as it is
        brought = pass_plugin(name)
        if brought is None:
            raise
        raise brought.failed(error) from error
