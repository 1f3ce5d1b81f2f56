"""A network that selects among its own answers (`graph.selection`): what a run makes of it, said before any work."""

from __future__ import annotations

import onnx_ir as ir

from edgec.compiler.read.asked import Asked
from edgec.graph.errors import UnsupportedError, UsageError
from edgec.graph.selection import Selection
from edgec.passes.options import KEEP
from edgec.passes.resize_input import ResizeInput

_WITHOUT = (
    "Export the network without what selects among its results, and suppress boxes in the program around it."
)


def beside_selection(asked: Asked, network: ir.Model, selection: Selection) -> tuple[str, ...]:
    """What is to be said of a run whose ``network`` has a ``selection`` behind it.

    Raises UnsupportedError for a TFLite file with the selection, UsageError for another size of the input: what selects holds
    numbers of the source's size.
    """
    recipe = asked.recipe
    ends = ", ".join(value.name or "" for value in network.graph.outputs)
    if any(isinstance(one, ResizeInput) for one in asked.passes) or recipe.resolution != KEEP:
        why = f"{selection.words} holds numbers that belong to its size"
        raise UsageError(
            "no other size of this network's input", where="--resolution", why=why, hint=_WITHOUT
        )
    remarks = [f"compiled and judged up to {ends}: {selection.words} stays as it is behind them"]
    if "tflite" in recipe.formats:
        if not recipe.split_unsupported:
            hint = f"--split-unsupported makes a TFLite file that ends at {ends}."
            raise UnsupportedError(
                f"TFLite cannot take {selection.words}",
                why="how many it leaves is known at run time",
                hint=hint,
            )
        remarks.append(f"the TFLite files end at {ends}: the rest is for the host program")
    return tuple(remarks)
